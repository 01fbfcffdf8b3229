"""Public texts for the importance matrix, written for this purpose and used nowhere else.

None of them is a proof text (texts.py): a file must not be judged on what its rounding was fitted
to. No word of them comes from anyone's records: a matrix of private text would carry something of
it into the file, outside any privacy budget.
"""

from __future__ import annotations

import csv
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.core.errors import ConfigWrong, NotFound
from appliance.core.home import Home
from appliance.data import store
from appliance.data.split import SPLITS

LARGEST = 20_000_000  # bytes of a calibration file
_TELLING = 20  # characters; a shorter line may stand in any text

CHATS = (
    ("Can I bring my dog to the office on Fridays?", "Yes, as long as it stays on a lead in the corridors."),
    (
        "How do I reset the heating after a power cut?",
        "Hold the red button for five seconds until it blinks.",
    ),
    (
        "What is the difference between a virus and a bacterium?",
        "A bacterium is a living cell; a virus is not.",
    ),
    ("Please shorten: we regret to inform you that the hall is closed.", "The hall is closed."),
    (
        "The parcel shows as delivered but nothing is here.",
        "I have opened a search with the carrier for you.",
    ),
    (
        "Is it normal that the cut is still warm after three days?",
        "Warmth with redness should be looked at today.",
    ),
    ("Give me three words for large.", "Big, huge, vast."),
    ("When does the branch in the old town open on Saturdays?", "From nine until half past twelve."),
    ("I was charged twice for the same ticket.", "I see both charges and have returned one of them."),
    (
        "Write a reminder for unpaid rent, friendly.",
        "Perhaps it slipped your mind: the rent for May is open.",
    ),
    ("What does 15 % of 240 make?", "36."),
    ("Who signs the leave form when my manager is away?", "The deputy named in the plan of the department."),
    (
        "My screen stays black after the update.",
        "Start it while holding F8 and choose the last good version.",
    ),
    ("Can the tablet be taken with grapefruit juice?", "No, the juice raises its level; take it with water."),
    ("Translate 'Guten Morgen' into French.", "Bonjour."),
    ("How long must a contract be kept?", "Ten years from the end of the year in which it ended."),
)

TEXTS = (
    "The bridge was built in eleven months. Stone came down the river on flat boats, was cut on the bank "
    "and lifted by a crane that four oxen turned. When the last arch was closed the builders left the "
    "wooden frame in place for another three weeks, because the mortar hardens slowly in damp air. On the "
    "day it was taken away half the town stood on the hill and waited for the stones to move. They did "
    "not, and the first cart to cross carried nothing but salt.",
    "Asthma narrows the small airways. Their walls swell, the muscle around them tightens and thick mucus "
    "gathers inside, so that air flows out more slowly than it came in. Pollen, cold air, smoke, exercise "
    "and infections can set off an attack. Two kinds of medicine are inhaled: one opens the airways within "
    "minutes and is taken when needed, the other calms the inflammation and works only when it is used "
    "every day. A plan on paper says what to do when the peak flow falls below a given value.",
    "A letter of credit is a promise by a bank to pay the seller as soon as certain documents are shown: "
    "the bill of lading, the invoice, the insurance. The bank looks at papers, never at goods. If a date or "
    "a weight differs by a single figure the documents may be refused, and the seller has a few days to put "
    "them right. Fees are shared as agreed; most often each side pays its own bank.",
    "To replace the filter, first switch off the unit and wait two minutes. Open the front cover by "
    "pressing both clips. Pull the old filter straight out; do not tilt it, or dust will fall inside. Wipe "
    "the frame with a dry cloth. Slide the new filter in with the arrow pointing down until it clicks. "
    "Close the cover, switch the unit on, and hold RESET for 3 s. The lamp turns green. Note the date.",
    "def moving_average(values, width):\n    total = sum(values[:width])\n    yield total / width\n    for "
    "old, new in zip(values, values[width:]):\n        total += new - old\n        yield total / width\n\n\n"
    "if __name__ == '__main__':\n    print(list(moving_average([3, 1, 4, 1, 5, 9, 2, 6], 3)))\n",
    "Report of the night shift, ward 4. 22:10 quiet. 23:45 room 12: infusion finished, line flushed, "
    "patient asleep. 01:30 room 7: blood pressure 96/58, pulse 104, doctor called, 500 ml given over one "
    "hour. 02:40 room 7: 112/70, pulse 88. 04:15 new admission from the emergency room, hip fracture, for "
    "theatre at 08:00, nothing by mouth. 06:00 samples taken. Handed over to the day shift at 06:30.",
    "Die Bibliothek öffnet montags erst am Nachmittag. Wer ein Buch verlängern möchte, kann das am Schalter "
    "oder über das Netz tun; nach der dritten Verlängerung muss es zurückgegeben werden. Für verspätete "
    "Bücher wird eine kleine Gebühr erhoben, Kinder zahlen nichts.",
    "Le train de nuit part à vingt-deux heures et arrive au petit matin. Les couchettes se réservent à "
    "l'avance, les places assises restent libres. À la frontière, le contrôleur passe dans chaque voiture "
    "et demande les billets ainsi qu'une pièce d'identité.",
    "El mercado abre antes del amanecer. Los agricultores descargan cajas de tomates, pimientos y naranjas, "
    "y a las siete ya hay cola en el puesto del pan. Al mediodía todo se recoge y la plaza queda vacía.",
    "Subject: maintenance on Sunday. Dear all, the servers in building C will be moved between 06:00 and "
    "11:00. Mail and telephone are not affected. Shared drives can be read but not written. If something "
    "does not work after 11:30, please tell the help desk (ext. 4400) which machine you use and what you "
    "see on the screen. Thank you for your patience.",
    "A triangle with sides 3, 4 and 5 has a right angle, for 9 + 16 = 25. The same holds for every multiple: "
    "6, 8, 10 or 30, 40, 50. Carpenters use a knotted rope to mark a square corner on the ground. The area "
    "is half the product of the short sides, so 6 for the first triangle, and the circle inside it has a "
    "radius of exactly 1.",
    "| item | quantity | unit price | total |\n| --- | ---: | ---: | ---: |\n| gloves, box of 100 | 24 | "
    "7.80 | 187.20 |\n| masks, box of 50 | 40 | 5.25 | 210.00 |\n| gowns | 150 | 1.90 | 285.00 |\n| delivery "
    "| 1 | 18.50 | 18.50 |\n\nPayable within 30 days without deduction.",
    "She had kept the shop for forty years and knew what people would ask for by the way they closed the "
    "door. The hurried ones wanted stamps. The careful ones had lost a button. A child who came in alone "
    "and looked at the floor had been sent for something whose name it had forgotten on the way, and she "
    "would say: tell me what it is for, and we shall find it together.",
    "Clouds form where air rises and cools. Warm air holds more vapour than cold air; when it is cooled to "
    "the dew point the vapour condenses on tiny grains of dust or salt. Flat layers come from air that is "
    "lifted gently over a wide region, towers from bubbles that rise fast over heated ground. Rain falls "
    "once the drops are too heavy for the rising air to carry.",
    '{"order": 20931, "customer": {"id": 77, "since": "2019-04-02"}, "lines": [{"sku": "A-100", "count": 2, '
    '"price": 14.5}, {"sku": "C-320", "count": 1, "price": 99.0}], "paid": false, "notes": null}',
    "The tenant shall return the keys on the last day of the lease. Both parties walk through the rooms and "
    "write down what is damaged beyond ordinary wear. The deposit is paid back within two months, less the "
    "cost of repairs that the tenant has acknowledged. Disputes are first brought before the conciliation "
    "board of the district; only then may a court be asked.",
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a matrix is collected on. `sha256` is that of the operator's file, "" for our own texts."""

    name: str
    texts: tuple[str, ...]
    chats: tuple[tuple[str, str], ...] = ()
    sha256: str = ""


def shipped() -> Calibration:
    """Our own texts."""
    told = json.dumps([TEXTS, CHATS], ensure_ascii=False)
    digest = hashlib.sha256(told.encode()).hexdigest()
    return Calibration(name=f"cloister public texts {digest[:12]}", texts=TEXTS, chats=CHATS)


def declared(home: Home, path: Path) -> Calibration:
    """A text file that the operator declares public.

    Raises:
        NotFound: there is none.
        ConfigWrong: too large, no text, or of the site's own: in its folder, or with its records.
    """
    place = path.resolve()
    if place.is_relative_to(home.path.resolve()):
        raise ConfigWrong(
            f"{path} lies in the site's own folder, where records are kept.",
            "An importance matrix may only be made of public text.",
        )
    if not place.is_file():
        raise NotFound(f"There is no file {path}.", "Check the path given with --calibration.")
    if place.stat().st_size > LARGEST:
        raise ConfigWrong(f"{path.name} is larger than {LARGEST / 1e6:.0f} MB.", "Give a part of it.")
    content = place.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as problem:
        raise ConfigWrong(f"{path.name} is no UTF-8 text.", "Save it as UTF-8 text.") from problem
    check_no_records(home, text)
    digest = hashlib.sha256(content).hexdigest()
    return Calibration(name=f"{path.name} {digest[:12]}", texts=(text,), sha256=digest)


def check_no_records(home: Home, text: str) -> None:
    """Check that no record of the site's datasets stands in `text` as a line or a CSV cell.

    Raises:
        ConfigWrong: one does.
    """
    parts = {part.strip() for part in text.splitlines()}
    with suppress(csv.Error):
        parts |= {cell.strip() for row in csv.reader(text.splitlines()) for cell in row}
    for dataset in store.datasets(home):
        for split in SPLITS:
            for record in store.read(dataset, split):
                first = record.text.strip().partition("\n")[0].strip()
                if len(first) >= _TELLING and first in parts:
                    raise ConfigWrong(
                        f"The calibration text holds records of {dataset.title}.",
                        "An importance matrix may only be made of public text.",
                    )
