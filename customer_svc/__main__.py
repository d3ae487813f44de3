"""`python -m customer_svc` serves; `python -m customer_svc migrate` makes the schema."""

from chassis.service import main
from customer_svc.bootstrap import NAME, build, migrate
from customer_svc.config import CustomerConfig

if __name__ == "__main__":
    main(NAME, CustomerConfig, build=build, migrate=migrate)
