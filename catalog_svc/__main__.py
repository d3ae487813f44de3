"""`python -m catalog_svc` serves; `python -m catalog_svc migrate` makes the indexes."""

from catalog_svc.bootstrap import NAME, build, migrate
from catalog_svc.config import CatalogConfig
from chassis.service import main

if __name__ == "__main__":
    main(NAME, CatalogConfig, build=build, migrate=migrate)
