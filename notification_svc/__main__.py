"""`python -m notification_svc` serves; `python -m notification_svc migrate` makes the schema."""

from chassis.service import main
from notification_svc.bootstrap import NAME, build, migrate
from notification_svc.config import NotificationConfig

if __name__ == "__main__":
    main(NAME, NotificationConfig, build=build, migrate=migrate)
