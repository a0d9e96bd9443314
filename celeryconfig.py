"""Celery on Redis, set so that a message is a hint: it may be lost, doubled or late, and nothing depends on it."""

from __future__ import annotations

from kombu.entity import Queue

from config.settings import load
from etl.runs import messages

_settings = load()

broker_url = _settings.redis_url or "redis://127.0.0.1:6379/0"
broker_transport_options = {
    "visibility_timeout": 7200,  # far above task_time_limit: Redis never sends again what a worker is still at
    "socket_timeout": 10,  # without one, a half-open link blocks the worker for good
    "socket_connect_timeout": 4,
    "socket_keepalive": True,
    "health_check_interval": 5,  # finds a dead link in seconds instead of a minute
}
broker_connection_timeout = 4
broker_connection_retry_on_startup = True  # workers may start before Redis
broker_connection_max_retries = None  # never give up
broker_channel_error_retry = True  # a full or read-only Redis must not end the worker
worker_cancel_long_running_tasks_on_connection_loss = False  # finishing is safe: writes are fenced

result_backend = None  # results live in PostgreSQL; nothing waits for a task
task_ignore_result = True
task_serializer = "json"
accept_content = ["json"]
task_acks_late = True  # a killed worker's message comes back
task_reject_on_worker_lost = False  # else a poison task is redelivered without end; attempts are counted in PostgreSQL
task_acks_on_failure = True  # the failure is recorded in PostgreSQL; Redis has no dead letters
task_acks_on_timeout = True
task_publish_retry = False  # the sweeper sends again; a retried publish doubles messages and blocks
task_time_limit = 900  # seconds, above the longest slice; what it kills is taken over when its claim expires
task_soft_time_limit = 840
worker_prefetch_multiplier = 1  # a worker with no free process leaves messages to the others
worker_max_tasks_per_child = 2000  # against slow leaks in C libraries only
worker_max_memory_per_child = _settings.worker_memory * 3 // 4 // 1024  # KiB; looked at between tasks
worker_lost_wait = 1.0  # seconds until a killed process is replaced: it has no result to wait for
worker_concurrency = _settings.worker_processes
worker_hijack_root_logger = False  # config.logs owns the log format
worker_redirect_stdouts = False

task_queues = [
    Queue(name)  # type: ignore[no-untyped-call]
    for name in messages.QUEUES
]
task_default_queue = messages.LOW_QUEUE
task_default_exchange_type = "direct"
task_create_missing_queues = False  # a typo is an error, not a queue that nobody reads
task_routes = {
    messages.RUN: {"queue": messages.EXTRACT_QUEUE},
    messages.EXTRACT: {"queue": messages.EXTRACT_QUEUE},
    messages.NORMALIZE: {"queue": messages.LOAD_QUEUE},
    messages.LOAD: {"queue": messages.LOAD_QUEUE},
    messages.PLAN: {"queue": messages.LOW_QUEUE},
}

worker_send_task_events = True  # Flower needs them; nothing else reads them
task_send_sent_event = True
event_queue_expires = 30  # a viewer that left does not fill Redis
event_queue_ttl = 5
control_queue_expires = 30
control_queue_ttl = 30

enable_utc = True
timezone = "UTC"
beat_scheduler = "worker.scheduler:SlotScheduler"
beat_max_loop_interval = 5  # an edited schedule acts within five seconds
