"""`python -m payment_svc` serves, `python -m payment_svc migrate` prepares the databases."""

from chassis.service import main
from payment_svc.bootstrap import NAME, build, migrate
from payment_svc.config import PaymentConfig

if __name__ == "__main__":
    main(NAME, PaymentConfig, build=build, migrate=migrate)
