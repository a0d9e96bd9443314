"""What gunicorn imports."""

from config import logs as log_config, settings
from web.app import create_app

log_config.configure(settings.load_connected())
app = create_app(settings.load_connected())
