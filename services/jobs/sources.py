"""Which tenants may use a source database.

A source that names no tenant is open to nobody; `*` opens it to all. api and the workers are given the same
map of a source's name to its tenants; only workers have the source's address.
"""

from collections.abc import Collection, Iterable, Mapping

from services.contracts.events import PlannedStep
from services.jobs.fields import Faults, shown

EVERY_TENANT = "*"
Tenants = Mapping[str, Collection[str]]


def is_open(tenants: Tenants, source: str, tenant: str) -> bool:
    """Whether the tenant may use the source."""
    return not {tenant, EVERY_TENANT}.isdisjoint(tenants.get(source, ()))


def closed(source: str) -> str:
    """Why a tenant may not use a source. A source that does not exist is answered alike."""
    setting = f"MILLSTREAM_SOURCES__{source.upper()}__TENANTS"
    return f"source {shown(source)} is not open to this tenant; an administrator names it in {setting}"


def check_plan(tenants: Tenants, tenant: str, plan: Iterable[PlannedStep], pointer: str) -> None:
    """Raises Refused, at `pointer`, when a step reads a source that is not open to the tenant."""
    read = {step.parameters["source"] for step in plan if step.kind == "EXPORT"}
    check(tenants, tenant, [(pointer, source) for source in sorted(read)])


def check(tenants: Tenants, tenant: str, named: Iterable[tuple[str, str]]) -> None:
    """`named` are sources, each after the pointer to where it is named. Raises Refused."""
    faults = Faults()
    for pointer, source in named:
        if not is_open(tenants, source, tenant):
            faults.add(pointer, closed(source))
    faults.raise_if_any()
