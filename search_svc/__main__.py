"""`python -m search_svc` serves, `python -m search_svc migrate` creates the indices."""

from chassis.service import main
from search_svc.bootstrap import NAME, build, migrate
from search_svc.config import SearchConfig

if __name__ == "__main__":
    main(NAME, SearchConfig, build=build, migrate=migrate)
