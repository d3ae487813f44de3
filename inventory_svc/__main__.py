"""`python -m inventory_svc` serves, `python -m inventory_svc migrate` prepares the database."""

from chassis.service import main
from inventory_svc.bootstrap import NAME, build, migrate
from inventory_svc.config import InventoryConfig

if __name__ == "__main__":
    main(NAME, InventoryConfig, build=build, migrate=migrate)
