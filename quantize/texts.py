# ruff: noqa: RUF001
"""Public texts for proofs, written for this purpose: no word of them comes from anyone's records."""

from __future__ import annotations

# Strings on which tokenizers disagree when anything about them is wrong.
NASTY = (
    "",
    " ",
    "  ",
    "    ",
    "\t",
    "\n",
    "\n\n\n",
    "\r\n\r\n",
    " \n \t \n ",
    "a",
    " a",
    "a ",
    "a  b   c    d     e",
    "\tindented\n\t\ttwice\n    four spaces",
    "trailing spaces   \nnext line",
    "Hello, world!",
    "HELLO WORLD hello World hELLO",
    "don't can't we'll they've I'm he'd it's",
    "DON'T CAN'T WE'LL THEY'VE I'M HE'D IT'S",
    "don’t “quoted” ‘single’ – dash — long… ellipsis",
    "3 33 333 3333 33333 333333 3333333",
    "3.14159 -273.15 1,000,000 1e-9 0x1F 10% $5.00 €7 £8 ¥9 #1",
    "12:34:56 2024-02-29 29/02/24 +1 (555) 010-9999 192.168.0.1",
    "v1.2.3-rc4+build.56 a1b2c3d4 A1B2C3 x86_64 H2O COVID-19",
    "٣٤٥ १२३ ๑๒๓ Ⅳ ½ ² ①",
    "user@example.org https://example.org/a/b?c=d&e=%20f#g",
    "def f(x: int) -> str:\n    return f\"{x!r}\" if x != 0 else '\\n'\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c->d; } // done",
    "SELECT * FROM t WHERE a='b' AND c>=1; -- x",
    '{"key": [1, 2.5, null, true], "näme": "wert"}',
    "<div class='a'>text &amp; more</div><!-- c -->",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "# Title\n\n* one\n* two\n  * three\n\n```sh\nls -la | grep x\n```",
    "a\\b\\\\c \\u0041 \\x00 %s %d {0}",
    "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./",
    "!!!??? ...... ------ ====== ______ ######",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "Donaudampfschifffahrtsgesellschaftskapitän Straße groß GROẞ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ababababababababababababababababababababababababab",
    "qwrtzpsdfgkxcvbnm zxqjvkw bcdfghjklmnp",
    "CamelCaseWord snake_case_word kebab-case-word SCREAMING_CASE",
    "café naïve résumé Zürich Łódź Ærøskøbing São Tomé",
    "cafe\u0301 nai\u0308ve e\u0301\u0301 A\u030a o\u0323\u0302",
    "Z͑͗͛ͫa̴̡l͕͖g̷o̸",
    "ﬁne ﬂow ﬀ ｆｕｌｌｗｉｄｔｈ １２３",
    "Привет, мир! Как дела? ЁЖ ёж",
    "Γειά σου Κόσμε ΑΒΓ άέή ϊΐ",
    "שלום עולם מה שלומך",
    "مرحبا بالعالم كيف حالك؟ لا إله",
    "\u202bعربي\u202c mixed \u2067rtl\u2069 text",
    "नमस्ते दुनिया क्षत्रिय ज्ञान",
    "สวัสดีชาวโลก ภาษาไทย",
    "Xin chào thế giới, tiếng Việt có dấu",
    "你好，世界！这是一个测试。",
    "繁體中文測試「引號」《書名》",
    "こんにちは世界。カタカナ、ひらがな、漢字。",
    "안녕하세요 세계! 한국어 테스트",
    "中文and English混排123テスト",
    "𠀀𠀁 𝒜𝓁𝑔ℯ𝒷𝓇𝒶 𐍈 🄰",
    "😀 😃😄 🎉🎉🎉 👍🏽 👨\u200d👩\u200d👧 🏳️\u200d🌈 🇩🇪🇫🇷 ☃️ ❤️ 1️⃣",
    "text😀text 😀text text😀",
    "zero\u200bwidth\u200cjoin\u200dners\ufeffbom\u2060",
    "no\u00a0break\u2003em\u3000ideographic\u2028line\u2029para\u0085next",
    "soft\u00adhyphen \u2011 \u2212 \u00b7 \u2022",
    "\x00",
    "a\x00b\x01c\x02d\x1be\x7ff",
    "\x0b\x0c\x1c\x1d bell\x07 back\x08",
    "\ue000 \uf8ff \U000f0000 \ufffd \uffff",
    "\u0378 \u05ff unassigned",
    "<s>a</s>",
    "</s>",
    "<pad><unk><mask>",
    "<|endoftext|>",
    "<|im_start|>user\nhi<|im_end|>",
    "<|begin_of_text|><|start_header_id|>x<|end_header_id|><|eot_id|>",
    "<|system|> <|user|> <|assistant|>",
    "[INST] x [/INST] <<SYS>>",
    "<start_of_turn>model<end_of_turn>",
    "<fim_prefix><|fim_middle|>",
    "< s > <|user |> <|us er|> |user|>",
    "[PAD0] [PAD1] <0x0A> <0xFF> ▁ Ġ Ċ âĢĻ",
    "Ãģ Ä Å encoding mojibake Ã© â€™",
    "ÀÁÂÃ ĀāĂă ǍǎǏǐ ẠạẢả",
    "ʼn ŉ ı İ ſ \u212a \u212b \u2126",
    "x\n\ny\r\rz\r\nw\n\r",
    " leading\n  and\n   more\n    spaces",
    "a.b.c ... a..b (a)(b) [a][b] {a}{b}",
    "1st 2nd 3rd 4th 21st-century 1990s '90s",
    "Dr. O'Brien-Smith's e-mail, i.e. re: 're 's",
    "50mg/kg b.i.d. q8h 120/80 mmHg 37.5°C µg α-β ±2σ ≤3 ≥4 ≠ ∞",
)

CHATS = (
    [{"role": "user", "content": "Where do I find the form for a new card?"}],
    [
        {"role": "user", "content": "  Two lines,\nwith spaces around. "},
        {"role": "assistant", "content": "Understood: it's 10% off <today>."},
        {"role": "user", "content": "And émigré 你好 😀?"},
    ],
    [
        {"role": "system", "content": "You sort messages."},
        {"role": "user", "content": "My invoice is wrong."},
    ],
)

# Short messages of the kind that a labelling task sees, over several trades.
MESSAGES = (
    "I would like to move my appointment on Tuesday to another day next week.",
    "Please send the last blood results to my family doctor as well.",
    "My tablets are nearly finished and the pharmacy says there is no repeat left.",
    "The invoice I received lists a consultation that never took place.",
    "Since yesterday evening there is a dull ache in my left shoulder when I lift my arm.",
    "Can someone tell me whether I have to fast before the scan?",
    "I lost my card on the train this morning, please block it and send a new one.",
    "Two payments to the same shop were taken from my account within a minute.",
    "How long does a transfer to another country normally take?",
    "The app keeps asking for a code that never arrives on my phone.",
    "What exchange rate do you apply when I pay in a foreign currency?",
    "I moved house and need to change the address on all my contracts.",
    "The printer on the third floor shows a paper jam, but there is no paper inside.",
    "My password expired while I was on holiday and I cannot log in any more.",
    "We are missing three boxes of gloves from the delivery of last Friday.",
    "Is the vaccination against influenza still offered without an appointment?",
    "My mother was discharged on Monday and nobody told us who changes the dressing.",
    "The form on your website does not accept my insurance number.",
    "Thank you for the quick help, everything works again.",
    "I want to complain about the waiting time at the front desk today.",
    "Could you confirm that the referral to the eye clinic has been sent?",
    "After the new medicine I get dizzy every time I stand up quickly.",
    "Please close my savings account and transfer the balance to the current one.",
    "There was a cash withdrawal in a city where I have never been.",
    "Which documents do I need to bring for the first visit?",
    "The child has had a fever of thirty-nine degrees for two days and drinks very little.",
    "Can I pay the remaining amount in monthly instalments?",
    "Turn the lights off in the meeting room and set an alarm for seven.",
    "Book a table for four people near the station on Saturday evening.",
    "What are the symptoms of iron deficiency, and how is it treated?",
    "hi need new apointment asap, cant come tmrw!! thx",
    "RE: FW: your ref 4711/B - no answer since 12.03., please call 9-12h",
)

ANSWERS = (
    "We have moved your appointment and sent you a confirmation.",
    "Thank you for your message. A colleague will call you back today.",
    "Please bring your card, a list of your medicines and the letter from your doctor.",
    "The amount will be returned to your account within five working days.",
)

# Running text: windows of these carry the perplexity and the long positions.
PASSAGES = (
    "The small harbour lay in the shade of the hill, and in the early morning the boats came back one"
    " after another. The men spoke little. They lifted the baskets on to the quay, counted them, and "
    "washed the boards with sea water. By eight o'clock the square behind the church smelled of "
    "coffee and of fish, and the first customers walked along the stalls with their bags under their "
    "arms. An old woman who sold bread from a cart knew everyone by name, and she never forgot who "
    "had paid and who would pay on Friday.",
    "Anaemia means that the blood carries less oxygen than the body needs. The most frequent cause is"
    " a lack of iron, which may come from loss of blood, from a diet that is poor in iron, or from an"
    " illness of the bowel. People who are affected feel tired, look pale and are short of breath "
    "when they climb stairs. A blood test shows the concentration of haemoglobin and the size of the "
    "red cells. Treatment depends on the cause: iron tablets are taken for several months, and the "
    "cause of the loss must be found and removed.",
    "A pump moves water by raising its pressure. In a centrifugal pump a wheel with curved blades "
    "turns inside a housing; water enters at the centre and leaves at the rim with higher speed, "
    "which the widening channel then turns into pressure. If the pressure at the inlet falls too low,"
    " bubbles of steam form and collapse on the blades. The noise is that of gravel, and the metal is"
    " eaten away within weeks. The remedy is to lower the pump, to widen the pipe, or to run the "
    "wheel more slowly.",
    "Minutes of the meeting. Present: six members, one guest. The chair opened the meeting at 18:05 "
    "and the minutes of the last meeting were approved without change. The treasurer reported an "
    "income of 4,120 and expenses of 3,870; the difference goes to the roof fund. It was agreed to "
    "repair the fence before winter, to ask three firms for an offer, and to decide by the end of "
    "October. The next meeting is on the second Thursday of the month.",
)
