"""`python -m email_svc` serves; `python -m email_svc migrate` makes the delivery log."""

from chassis.service import main
from email_svc.bootstrap import NAME, build, migrate
from email_svc.config import EmailConfig

if __name__ == "__main__":
    main(NAME, EmailConfig, build=build, migrate=migrate)
