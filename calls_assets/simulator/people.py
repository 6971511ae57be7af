"""The cast and the props: agents, contacts, queues, campaigns, codes. All invented, recognisably so.

Numbers are of the 555-01xx kind reserved for fiction, addresses at example.com and .example (RFC 2606).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# fmt: off
_FIRST_NAMES: Final = ("Ada", "Bram", "Cleo", "Dario", "Edda", "Falk", "Greta", "Hugo", "Ines", "Jarl", "Kaia", "Lars",
                       "Mira", "Nils", "Olga", "Pia", "Quinn", "Runa", "Sven", "Tilda", "Uma", "Vito", "Wanda", "Zoë")
_LAST_NAMES: Final = ("Sampleton", "Mockford", "Testerby", "Fakenham", "Placeholt", "Fixturesen", "Stubbs-Demo",
                      "Exemplar", "O'Dummy", "Beispiel", "Inventada", "Pretendson", "von Muster", "Simulova")
# fmt: on

QUEUES: Final = ((3, "Sales"), (4, "Support"), (7, "Billing & Refunds"), (9, "Returns"), (12, "Overflow (all agents)"))
MENUS: Final = ((2, "Main menu"), (5, "After hours"), (6, "Menu español"))
CAMPAIGNS: Final = (
    (1, "Renewals (spring, año 1)"),
    (2, "Welcome calls"),
    (5, "Win-back/12 months"),
    (8, "Survey (sample)"),
)
LINES: Final = (
    (1, "13125550100", "Main line"),
    (2, "13125550101", "Support line"),
    (3, "13125550102", "Sales/Returns"),
    (6, "13125550107", "Outbound/invented number"),
)
DISPOSITIONS: Final = (
    (1, "Resolved / no further action"),
    (2, "Resolved - follow-up e-mail sent (template 3)"),
    (4, "Callback: customer busy; try again, same agent"),
    (5, "Sale closed/won (12 mo., incl. add-on)"),
    (6, "Sale lost - price/competitor"),
    (9, "Escalated to 2nd level (ticket #, see note)"),
    (11, "Wrong number / not a customer"),
    (12, "Voicemail left, no answer"),
    (15, "Complaint: delivery (late, damaged, or missing item)"),
)
NOTES: Final = (
    "Simulated note: will call again on Tuesday.",
    "Simulated note: order \u201cA-000\u201d was sent twice; refund agreed.",
    "Simulated note: asked for the manual,\nsecond line of a note.",
    "Simulated note: naïve question about café vouchers 🙂",
    "Simulated note: n/a",
)
TAGS: Final = ("vip", "refund", "first-call", "complaint", "upsell", "language: es", "needs review", "quality-sample")
HANGUPS: Final = ("NORMAL_CLEARING", "NORMAL_CLEARING", "NORMAL_CLEARING", "ATTENDED_TRANSFER_HANGUP", "MEDIA_TIMEOUT")


@dataclass(frozen=True, slots=True)
class Agent:
    """One invented agent.

    Attributes:
        id: The agent's id.
        user_id: The agent's login, a second id space.
        alias: Display name; some have stray blanks, one is the text "null null".
        sip: Address.
    """

    id: int
    user_id: int
    alias: str
    sip: str


@dataclass(frozen=True, slots=True)
class Contact:
    """One invented contact.

    Attributes:
        id: The contact's id.
        full_name: Name.
        national_number: Ten digits, without country code.
        list_ids: The lists it is on.
    """

    id: int
    full_name: str
    national_number: str
    list_ids: tuple[int, ...]


def invent_agents(calls_per_day: int) -> tuple[Agent, ...]:
    """Twelve to forty agents, more for a busier account."""
    count = max(12, min(40, calls_per_day // 60))
    return tuple(_invent_agent(number) for number in range(1, count + 1))


def _invent_agent(number: int) -> Agent:
    alias = _name(number * 7)
    if number % 9 == 4:
        alias += " "
    if number == 11:
        alias = "null null"
    return Agent(number, 40 + number * 3, alias, f"sip:agent-{number:02d}@pbx.example.com")


def invent_contact(number: int) -> Contact:
    """The contact with a number; other numbers are other contacts."""
    area = 201 + number // 100 % 780
    lists = tuple(1 + (number + step * 3) % 11 for step in range(number % 4))
    return Contact(4_000 + number, _name(number), f"{area}55501{number % 100:02d}", lists)


def _name(number: int) -> str:
    return f"{_FIRST_NAMES[number % len(_FIRST_NAMES)]} {_LAST_NAMES[number // 5 % len(_LAST_NAMES)]}"
