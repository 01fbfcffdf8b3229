"""What every patient of the demo clinic may say around the request, and the words in the slots.

Same marks as in inbox_phrases. Nothing here is taken from anybody: names, numbers and plans are made up.
"""

from __future__ import annotations

SLOTS: dict[str, tuple[str, ...]] = {
    "weekday": ("[monday|tuesday|wednesday|thursday|friday]",),
    "when": (
        "[on|this|next] <weekday>",
        "[next week|tomorrow|the day after tomorrow|in two weeks|at the end of the month]",
        "on <ahead>",
    ),
    "day": (
        "[this|next] <weekday>",
        "[next week|tomorrow|the day after tomorrow|the end of the month]",
        "<ahead>",
    ),
    "past": (
        "[last|on|this] <weekday>",
        "[last week|yesterday|two weeks ago|last month|over the weekend]",
        "in [january|march|june|october]",
        "on <back>",
    ),
    "ago": (
        "[last|this] <weekday>",
        "[last week|yesterday|two weeks ago|last month|the weekend|january|march|june|october]",
        "<back>",
    ),
    "month": ("january", "march", "may", "july", "september", "november"),
    "drug": (
        "[metformin|lisinopril|sertraline|atorvastatin]",
        "[blood pressure|water|heart|thyroid] [pills|medicine|tablets]",
        "[sleeping|allergy|cholesterol|pain] [pills|medicine|tablets]",
        "[insulin|inhaler|eye drops|blood thinner|birth control pills|antibiotic|cream|nose spray]",
    ),
    "test": (
        "[blood test|blood work|urine test|stool test|strep swab|biopsy|pap smear|lab work]",
        "[mri|ct scan|x-ray|ultrasound|mammogram|sleep study|heart scan|bone scan|colonoscopy|stress test]",
    ),
    "lab": (
        "[cholesterol|sugar|a1c|iron|vitamin d|thyroid|psa]",
        "[kidney number|liver number|white count|red count|potassium|sodium]",
    ),
    "organ": ("[liver|kidney|lung|thyroid|ovary|spine|left breast]",),
    "body": (
        "[knee|back|shoulder|neck|hip|foot|ankle|elbow|wrist|hand|chest|belly|ear|throat|leg|arm|eye|heel]",
    ),
    "operation": (
        "[knee|hip|hernia|cataract|gallbladder|back|shoulder|sinus|thyroid] [operation|surgery|procedure]",
        "[hip replacement|knee replacement|hernia repair|gallbladder removal|c-section|bunion operation]",
    ),
    "insurer": (
        "[Bluefield|Harbor Mutual|Northstar|UnityOne|Cedar Care]",
        "[Medicare|Medicaid|the union plan|my insurance]",
    ),
    "amount": ("$[15|20|35|48|60|75|90|110|140|185|220|310|460|1200]",),
    "country": ("[Kenya|Peru|Vietnam|India|Brazil|Ghana|Thailand|Mexico|Egypt]",),
    "doctor": ("[Dr|Dr.|doctor] <surname>",),
    "street": ("[Oak|Mill|Church|Station|Park|Lake|Cedar|King|River] [street|road|avenue]",),
}

OPENINGS = (
    "hi", "hello", "good morning", "hi there", "hello team", "hey", "to whom it may concern",
    "hi, it's me again", "good afternoon", "dear <doctor>", "quick question", "hi, <first> here",
)  # fmt: skip

CHAT = (
    "hope you are all [well|doing fine]",
    "sorry to [bother you|write again|be a pain]",
    "[I called|tried calling] [twice|this morning|all week] [but nobody picked up|and was on hold]",
    "the [nurse|front desk|lady at the desk] [was so kind|told me to write here|said to message you]",
    "[not sure|no idea] [who to ask|if this is the right place|where this goes]",
    "[I was in|was there] <past> [for my <body>|for a checkup|to see <doctor>]",
    "my [wife|husband|daughter|neighbor] [says I should ask|is helping me type this]",
    "I am at work until five",
    "this is [getting silly|the second time I ask|a bit urgent]",
    "I have [diabetes|asthma|high blood pressure|a bad heart|arthritis]",
)

CLOSINGS = (
    "thanks", "thank you", "many thanks", "please [call|text|write] me back", "please advise", "let me know",
    "thanks so much", "best", "cheers", "any help is welcome", "have a nice day", "please hurry",
    "[asap|soon] please", "thank you for all you do",
)  # fmt: skip

CHILD = (
    "this is [for|about] my [son|daughter]",
    "[asking|writing] for my [son, he|daughter, she] is [four|six|nine|eleven|fifteen]",
)

ASIDES: dict[str, tuple[str, ...]] = {
    "appointment": (
        "[my next visit is|I am booked] <when> anyway",
        "I don't need an appointment for this",
        "we could talk at my appointment <when>",
        "I have seen <doctor> <past>",
    ),
    "medication": (
        "the refill [came|is sorted], thanks",
        "I still have enough <drug>",
        "I take <drug> [every day|in the morning]",
        "[no change in|not about] my medication",
    ),
    "payment": (
        "[this is not about|never mind] the bill",
        "I already paid the <amount>",
        "happy to pay if it costs something",
        "the payment went through",
    ),
    "insurance": (
        "my insurance [is still the same|should be on file|is not the problem]",
        "I am with <insurer>",
        "no insurance question this time",
        "<insurer> [has been told|knows]",
    ),
    "results": (
        "my [results|blood test] [were fine|came back normal]",
        "<doctor> [already called|told me] about the <test>",
        "my <lab> is [good|a bit high]",
        "not asking about the results",
    ),
    "symptoms": (
        "[my <body> still hurts a little|the pain is better] but that can wait",
        "I feel [fine|ok|much better] otherwise",
        "no fever or anything",
        "the rash is gone",
    ),
    "forms": (
        "the form [is done|was signed], thank you",
        "no paperwork needed",
        "I brought the papers <past>",
        "my [boss|school] already has the note",
    ),
    "vaccines": (
        "I had my flu shot",
        "the shots are up to date",
        "[covid|flu] vaccine was <past>",
        "no vaccine question",
    ),
    "account": (
        "[I could not find this|it does not say] on the portal",
        "[finally got|I got] into my account",
        "writing from my [wife's|daughter's] login",
        "the app sent me here",
    ),
    "transport": (
        "my [son|neighbor] drives me",
        "the bus is fine for me",
        "I can get a ride",
        "parking was [easy|full again]",
    ),
    "device": (
        "my [cpap|meter] works [now|fine]",
        "the brace helps",
        "I use a [walker|cane]",
        "the new [sensor|machine] is great",
    ),
    "surgery": (
        "[my|the] <operation> [went well|was years ago]",
        "this has nothing to do with the surgery",
        "since my <operation> [all is well|I am careful]",
        "I had the <operation> <past>",
    ),
}

IDENTITY: tuple[str, ...] = (
    "[my number is|call me at|reach me on|cell] <phone>",
    "[mrn|my mrn is|chart number|record no] <mrn>",
    "[my email is|write to|send to] <email>",
    "[dob|born|date of birth] <dob>",
    "[I live at|we live at|address is] <address>",
    "[patient name|this is|name is] <name>",
)

BRIDGES = ("also", "and another thing,", "one more thing,", "while I write,", "second,", "oh and")

VAGUE = (
    "any update on [this|what I asked]",
    "did you get my last message, [I heard nothing|still waiting]",
    "please call me when you [can|have a minute], it is about what [we discussed|I wrote <past>]",
    "[same|same thing] as last time please",
    "[<doctor>|the nurse] said you would [take care of it|get back to me] [by <day>|soon]",
    "it happened again, [what now|can you help]",
)

SIGNATURES = ("<name>", "<first>", "<name>, <dob>", "<name>, mrn <mrn>", "<first>, <phone>")

SHORT = {
    "appointment": "appt",
    "prescription": "rx",
    "please": "pls",
    "medication": "meds",
    "medicine": "meds",
    "doctor": "dr",
    "tomorrow": "tmrw",
    "insurance": "ins",
    "because": "bc",
    "blood pressure": "bp",
    "thanks": "thx",
    "thank you": "thx",
    "you": "u",
    "are": "r",
    "weeks": "wks",
    "surgery": "surg",
    "temperature": "temp",
    "before": "b4",
    "about": "abt",
    "with": "w/",
}

FIRST_NAMES = {
    "f": (
        "Maria", "Aisha", "Grace", "Linda", "Mei", "Olga", "Fatima", "Hannah", "Rosa", "Priya", "Nadia",
        "Carol", "Ingrid", "Zoe", "Ruth", "Amara", "Yuki", "Elena", "Dolores", "Keisha", "Anh", "Sofia",
    ),
    "m": (
        "James", "Omar", "Wei", "Carlos", "Ivan", "David", "Kofi", "Arjun", "Peter", "Luca", "Hassan",
        "Earl", "Sven", "Diego", "Tomas", "Malik", "Kenji", "Pavel", "Andre", "Minh", "Walter", "Joao",
    ),
}  # fmt: skip

SURNAMES = (
    "Alvarez", "Becker", "Chen", "Diallo", "Edwards", "Fischer", "Garcia", "Haddad", "Ito", "Johansson",
    "Kowalski", "Larsen", "Mbeki", "Nguyen", "Okafor", "Patel", "Quinn", "Rossi", "Silva", "Turner", "Ueda",
    "Vargas", "Weber", "Xu", "Yilmaz", "Zimmer", "Abbott", "Bello", "Costa", "Dunn", "Ferrari", "Gupta",
    "Hughes", "Jansen", "Khan", "Lopez", "Moreno", "Novak", "Osman", "Petrov", "Reyes", "Schmidt", "Tran",
)  # fmt: skip

DOCTORS = ("Patel", "Okafor", "Lindgren", "Moss", "Haddad", "Ruiz", "Tanaka", "Brandt", "Osei", "Kaplan")

STREETS = ("Oak St", "Mill Road", "Church Lane", "Lake Drive", "Cedar Ave", "King Street", "River Road")

TOWNS = ("Ashford", "Brookhill", "Clearwater", "Dunmore", "Eastvale", "Fernley")
