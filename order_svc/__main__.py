"""`python -m order_svc` serves, `python -m order_svc migrate` prepares the database."""

from chassis.service import main
from order_svc.bootstrap import NAME, build, migrate
from order_svc.config import OrderConfig

if __name__ == "__main__":
    main(NAME, OrderConfig, build=build, migrate=migrate)
