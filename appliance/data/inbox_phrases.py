"""What patients of the demo clinic write, by queue and phrase family.

`[a|b]` takes one of the alternatives (one may be empty); `<slot>` is filled in by inbox_talk.SLOTS or
with something personal of the writer. A family named in inbox.LATE is written only from its month on.
"""

# ruff: noqa: E501 - one phrase a line

from __future__ import annotations

Families = dict[str, tuple[str, ...]]

QUEUES: dict[str, Families] = {
    "appointment": {
        "book": (
            "[I'd like to|I need to|hoping to|can I] [see|get in with|come in to see] <doctor> [<when>|sometime <when>|soon] about my <body>",
            "do you have [any openings|a slot|anything free|something open] <when> [in the morning|after work|around lunch|late in the day]",
            "when is the [soonest|earliest|next] time [I|we] [could|can] [come in|be seen|meet <doctor>] for [a checkup|the yearly physical|my <body>|a follow up]",
            "<doctor> [told me to come back|wants me back|said to return] in [two|three|six] [weeks|months], what days [are open|do you have]",
            "new to the area and [would like|want] to [join|start] with <doctor> as my regular doctor, [how do I get a first visit|is there a waiting list]",
        ),
        "move": (
            "[something came up|I'm stuck at work|my car broke down|the sitter cancelled|I have to fly out] and [I can't make it|I won't make it|that time is no good] <when>, [can we find another day|could we do it later|what else do you have]",
            "[need|want|have] to [move|push back|swap|change] my <weekday> [slot|time|visit|appointment] to [some other day|the week after|an afternoon]",
            "is it [possible|ok|too late] to come [an hour|a bit|30 minutes] [earlier|later] <when> than [planned|what is on my card]",
        ),
        "cancel": (
            "please [cancel|take me off the list for|give away my spot] <when>, [I am feeling better|we will be out of town|I don't need it any more]",
            "I [won't be coming|have to drop out|can't come] <when> after all, [no need to rebook|will call again later|sorry for the short notice]",
        ),
        "confirm": (
            "what time [am I|are we] [booked|down for|expected|due in] <when>, I [lost the card|deleted the reminder|forgot to write it down]",
            "just [checking|making sure|confirming] that [I am|we are] still on the schedule with <doctor> <when>",
            "is my visit <when> with <doctor> or with [the nurse|the assistant|someone else] and which [office|floor] is it",
        ),
        "day": (
            "running [10|15|20] minutes late [today|this morning], [the bus was late|traffic is awful|train stopped], can I still be seen",
            "if someone [cancels|drops out] with <doctor> [can you text me|let me know], I can be there in [20 minutes|half an hour|an hour]",
            "do you [have|do|offer] [evening|weekend|saturday|early morning] hours, I work [shifts|nights|long days] and [days are hard|can't leave before 5]",
            "could the visit <when> be [by video|over the phone|a phone call] [instead of coming in|as I live far away]",
        ),
    },
    "medication": {
        "refill": (
            "[I'm|I am] [down to|on|taking] my last [two|three|few] <drug>, [can you send a refill|please renew|need more before the weekend]",
            "please [renew|refill|reorder] [my|the] <drug>, [90 days|three months|same dose|90 pills] [like last time|if possible|as usual]",
            "there are no [refills|repeats] left on my <drug> and [I run out|they run out|the bottle is empty] <when>",
            "[can|could] <doctor> [write|send over|put in] [another|a new] prescription for <drug>, I [take it daily|have been on it for years|use it every night]",
        ),
        "pharmacy": (
            "the pharmacy [says|told me|keeps saying] they [never got|have no|are waiting on you for the] [prescription|refill] for my <drug>",
            "please send my <drug> to the [pharmacy|drugstore] [on <street>|near my work|by the station] [instead|from now on]",
            "the drugstore is out of <drug> [until <day>|everywhere], [what can I take in the meantime|could another one do]",
        ),
        "dose": (
            "I [forgot|missed|skipped] [last night's|this morning's|two days of] <drug>, do I [take double|catch up|just carry on]",
            "is it [ok|safe|alright] to take <drug> [with|together with|and] <drug> [or should I space them out|at the same time]",
            "should <drug> be taken [with food|in the morning or at night|on an empty stomach], the [leaflet|label] is [unclear|tiny]",
            "[took|I took] my [husband's|wife's|mother's] <drug> by mistake instead of my own, [do I skip mine|what now]",
        ),
        "change": (
            "the <drug> [makes me|is making me] [sleepy|sick to my stomach|cough at night|gain weight], [can we try another|can the dose come down|should I stop it]",
            "<drug> [costs|is now] <amount> a month, is there a [cheaper one|generic|different brand]",
            "<doctor> [raised|changed|cut] my <drug> <past>, [does the old bottle still count|how many do I take|half a pill or a whole one]",
            "want to come off <drug> [slowly|for good], I have felt [fine|steady|good] for [months|a year], how do I [taper|cut down]",
        ),
        "weekly pen": (
            "[my sister|a friend|everyone at work] is on the [new|weekly] [weight|slimming] pen, [could I start it too|would it suit me|is it something for me]",
            "the weekly pen is [out at every pharmacy|back ordered], do I [stay on|repeat] the [low|starting] dose or wait [until <day>|a week]",
            "how do I [store|travel with|inject] the new weekly pen, [it was left out of the fridge|the leaflet is missing]",
        ),
    },
    "payment": {
        "wrong": (
            "I [was|got|have been] [charged|billed] [twice|again|two times] for [one visit|the visit <past>|the same day]",
            "there is [a charge|a line|an extra] of <amount> [on my statement|in the letter] for [something|a test|a visit] I never had",
            "[got|received] a [letter|call] that I [owe|still owe] <amount> from <ago> but I [settled it|paid] [at the desk|by card|online] [that day|the same week]",
        ),
        "pay": (
            "[where|how] do I [pay|settle] [the <amount>|what I owe|my balance], [can I use a card over the phone|do you take checks|is there a link]",
            "I [can't|cannot] [manage|cover|pay] <amount> [at once|right now|this month], could I [split it|pay a bit each month|have more time]",
            "[lost my job|money is tight|on a fixed income], is there any [help|discount|hardship program] for what I owe the clinic",
            "my card [on file|number] [expired|was stolen], please [use the new one|don't draw the monthly amount yet]",
        ),
        "paper": (
            "[can|could] you [send|email|mail] me [a receipt|an itemized statement|proof] of what I paid <past>, [my employer pays it back|I need it for taxes|for my records]",
            "I do not understand [the statement|this invoice], what is the [<amount>|facility fee|second line] for",
            "please send [the statements|what I owe] to [my new place|my daughter who handles my money|my email] [from now on|instead]",
        ),
        "price": (
            "how much [will|would] [the <test>|seeing <doctor>|a first visit] cost [out of pocket|if I pay cash|without a plan]",
            "what is the [price|fee|cost] [for missing|when I miss] a visit, I [see|was asked] <amount>",
        ),
        "refund": (
            "I [overpaid|paid too much] <past>, when do I get the <amount> back [on my card|by check|at the desk]",
            "you [took|collected] a [copay|deposit] of <amount> <past> but [the visit never happened|I was told it was free], please [return it|send it back]",
        ),
    },
    "insurance": {
        "new plan": (
            "I [switched|changed|started new] jobs and [have|am on] <insurer> [from <day>|now], [where do I send the card|what do you need from me]",
            "my [husband's|wife's|mother's] plan [covers|includes] me [now|from <day>], do I [bring the card|need to tell anyone]",
            "[turned 65|just retired] and moved to <insurer>, [please update|does anything change for me|is <doctor> in it]",
            "please [update|replace] my [plan|coverage] with <insurer>, the [member|group|policy] number [is different|changed] since <ago>",
        ),
        "accepted": (
            "do you [take|accept|work with] <insurer>, [thinking of switching|open enrollment ends <when>|my company offers it]",
            "is <doctor> [in network|in the network|a preferred provider] for <insurer>",
            "which [plans|carriers] do you [take|work with], I have to choose [by <day>|this month]",
        ),
        "approval": (
            "[my insurance|<insurer>] [wants|needs|asks for] [an approval|prior approval|authorization] before the <test>, [has the office sent it|who does that]",
            "the pharmacy says <insurer> won't cover <drug> [without a form from you|unless the doctor explains why]",
            "has the [authorization|insurance approval|approval] for my <test> [come through|been sent to <insurer>|gone in], it is <when>",
        ),
        "denied": (
            "<insurer> [denied|refused|turned down] [the claim|my claim] for the <test>, [can you appeal|can the office send notes|what can we do]",
            "the [claim|insurance claim] from <ago> [bounced|was rejected] because of a wrong [code|policy number|date], please [send it again|resubmit]",
            "[got|received] a paper from <insurer> saying [not a bill|not medically necessary|out of network], what does [it|that] mean",
        ),
        "covered": (
            "is [the <test>|seeing <doctor>|therapy for my <body>] covered [by <insurer>|under my plan|by my insurance] or [not|is it on me]",
            "how many [visits|sessions] does <insurer> [allow|cover] [in a year|before I must pay]",
            "my coverage [ended|lapsed|stopped] <past>, [can I still come <when>|what are my options|does the clinic have a program]",
        ),
    },
    "results": {
        "waiting": (
            "[has anything|did anything] come back from the <test> [I had|I did|I gave] <past>",
            "it has been [a week|nine days|two weeks] since the <test> and [nobody called|I heard nothing|no results yet]",
            "the lab said [2 days|48 hours] for the [results|<test> results], [still waiting|any news|are they lost]",
            "[waiting on|nervous about] my <test> [results|result] from <ago>, [is it normal|good or bad news|could someone call]",
        ),
        "meaning": (
            "my <lab> [result|level|test] [came back|was] [high|low|flagged in red|a bit off], [should I worry|what does that mean|is it dangerous]",
            "what does a <lab> [level|result] of [8.2|41|130] mean [for me|in plain words]",
            "the report [mentions|says|lists] a small [spot|shadow|cyst|nodule] on my <organ>, [is it serious|did <doctor> see it]",
            "I [read|saw] the [results|numbers] [last night|online] and don't understand the <lab> part, can <doctor> [explain|go over it]",
            "is my <lab> [result|level] better than [last time|in the spring|a year ago]",
        ),
        "copy": (
            "please [send|fax|forward] [a copy of my|the] <test> [results|findings|report] to <doctor> [at the heart clinic|across town|before <day>]",
            "[can|could] I get the [results|report and pictures|findings] of my <test> from <ago>, another doctor wants to [look|compare]",
        ),
        "lab": (
            "the lab [called|wrote] that the [blood|urine] sample was [no good|too old|mixed up], [do I have to do the test again|will that delay the results]",
            "someone left a [message|voicemail] about my <test> results, [calling back|please call again|what did they show]",
            "did the <test> also check my <lab>, <doctor> [said he would add it|wanted to know]",
        ),
    },
    "symptoms": {
        "pain": (
            "my <body> has been [aching|throbbing|burning|swollen] [since <ago>|for three days|all week] and [ice|rest|ibuprofen] [does nothing|is not helping]",
            "[sharp|dull|stabbing] pain in my <body> [when I breathe in|when I bend|at night|after eating], [should I come in|is it an emergency]",
            "woke up with a [stiff|numb|swollen|locked] <body>, [can't turn it|it tingles|it feels hot]",
        ),
        "fever": (
            "[running|have had] a [fever|temperature] of [101|102|39] [since <ago>|for two days] with [chills|a cough|sore throat|an earache]",
            "[coughing|hacking|sneezing] [for two weeks|all night] and now it is [green|in my chest|hard to sleep], [do I need to be seen|wait it out]",
            "everyone at home is sick and I [lost my taste|can't keep warm|ache all over]",
        ),
        "skin": (
            "there is [a red|an itchy|a bumpy|a scaly] [rash|patch] on my <body> that [is spreading|won't go away|came <past>]",
            "a [tick|dog|bee|spider] got my <body> <past>, now it is [puffy|red around|warm], [what should I do|is that bad]",
            "a mole on my <body> [changed|got darker|started bleeding], [does somebody need to look|how urgent is that]",
        ),
        "stomach": (
            "been [throwing up|up all night|running to the toilet] since <ago>, [can't keep water down|nothing stays in], [er or wait|what can I do]",
            "[heartburn|cramps|bloating] [after every meal|most nights] for [weeks|a month], [is that something|what should I eat]",
            "blood [when I wipe|in the toilet] <past>, no pain, [is that urgent|should I worry]",
        ),
        "other": (
            "I get [dizzy|light headed|shaky] when I [stand up|climb stairs|turn over], [is it my heart|never had this before]",
            "[can't sleep|heart racing|crying a lot|worrying all the time] since <ago>, I [don't feel like myself|need someone to talk to]",
            "[fell|slipped|tripped] <past> and hit my <body>, [bruised|it clicks|can't put weight on it], [is it broken|can it wait]",
            "my <body> [feels weak|goes numb|tingles] [on one side|every morning], it [comes and goes|lasts an hour]",
        ),
    },
    "forms": {
        "work": (
            "my [boss|employer|manager|hr person] [wants|needs|asks for] a [note|letter] that I was [out|ill|home] <past>",
            "[can|could] <doctor> write that I [can go back|may only do light duty|must sit down more] at work from <day>",
            "need a [sick note|doctor's note|letter] for [three|four|five] days [off|missed], [I was seen <past>|can it be emailed]",
        ),
        "school": (
            "the [camp|school|daycare] needs [this form|the health form|the papers] [signed|stamped|filled in] by <day>",
            "[sports|team] physical [form|paper] for my [son|daughter], [the coach wants it <when>|only the signature is missing]",
            "the school nurse wants [a plan|written orders] for [asthma|the peanut allergy|the inhaler], [could <doctor> sign it|I uploaded the page]",
        ),
        "leave": (
            "did <doctor> finish the [disability|family leave|leave] [papers|pages|packet] I [dropped off|faxed|left at the desk] <past>",
            "[disability|family leave|short term leave] office says [page two|the doctor's part|the date] is [missing|blank], due <day>",
            "how long does it take to [fill in|complete] [leave papers|a packet for disability], my [hr|lawyer] is pushing",
        ),
        "letter": (
            "I need a [letter|note|signed letter] for [jury duty|the airline|my landlord|the gym|housing] that says I [can't sit long|can't climb stairs|need a ground floor|must carry needles]",
            "the [doctor's part|back page] of the disabled [parking permit|placard] [has to be signed|is still empty]",
            "[applying to adopt|joining the fire service|renewing my license] and they want a [medical form|health certificate|signed form]",
        ),
        "chart": (
            "I signed the [release|release form], please [send|transfer] my [whole chart|file|notes] to [the new clinic|my lawyer|another doctor]",
            "[which form do I sign|what paperwork is needed] for [my notes|a copy of my chart|all my papers] from [2019|the last five years|before we moved]",
            "there is a mistake in my [chart|notes], it says I [smoke|had a stroke|am allergic to eggs], is there a form to [correct|change] that",
        ),
    },
    "vaccines": {
        "flu": (
            "are you [giving|doing] [flu|covid] [shots|jabs|boosters] yet, [can I walk in|do I need a time|are there any left]",
            "[when|how soon] after [covid|a cold|the flu] can I get [the booster|my flu shot|the next jab]",
            "can I [have|get] the flu and covid [one|shot|jab] [together|on the same day], [I had a sore arm last year|is it too much]",
            "is there an egg free [flu |]shot, my [son|daughter|husband] is allergic",
        ),
        "travel": (
            "[going|flying|off] to <country> in <month>, [what jabs do I need|which shots are needed|do I need yellow fever]",
            "are [malaria|typhoid|rabies] [shots|jabs|vaccines] something you do, we [leave|fly] <when> to <country>",
        ),
        "child": (
            "is my [son|daughter|baby|toddler] [due for|behind on|late with] [the 12 month ones|MMR|the second dose|any shots]",
            "we [missed|skipped|want to delay] the [two month|four month|kindergarten] shots, how do we [catch up|space them]",
            "should my [son|daughter|teen] get the HPV [series|one], [how many doses|at what age]",
        ),
        "proof": (
            "my [college|new job|school] wants [dates|proof|a record] of my [hepatitis B|MMR|tetanus|chickenpox] [shots|vaccine|doses], [is it in my chart|can you print it]",
            "am I [still protected|immune] against [measles|chickenpox|hepatitis B] or do I need [the shot|the vaccine] again, [I have no record|I lost my card]",
        ),
        "adult": (
            "[turned|turning] [50|60|65], should I get the [shingles|pneumonia|RSV] [shot|vaccine] [now|too], [one or two doses|is there a wait]",
            "stepped on a [nail|fence wire] <past>, [when was my last tetanus shot|do I need a tetanus shot]",
            "my arm is [sore|red|swollen] after the [tetanus|flu|second] shot <past>, [normal|is that expected|do I skip the next]",
            "[pregnant|expecting], [which shots are safe|do I need the whooping cough shot|is the flu vaccine ok] before <month>",
        ),
    },
    "account": {
        "login": (
            "[can't|cannot|not able to] [log in|get in|sign in] to the [portal|website|app], it [says wrong password|locked me out|just spins]",
            "the [six digit|security|text] code [never comes|goes to my old phone|is always wrong]",
            "forgot my [user name|password] and the reset email [does not arrive|goes nowhere|link is dead]",
            "[got|have] a new phone and the app [wants me to start over|does not know me|asks for the old one]",
        ),
        "details": (
            "we moved, please [update|change|correct] my address [in your system|on file|from <day>]",
            "my [phone number|email|last name] [changed|is new|changed after the wedding|is new since <ago>], please fix it on my profile",
            "my [name|date of birth] is spelled wrong [on the screen|online|on my profile], can someone [fix|change] it",
        ),
        "family": (
            "how do I [see|open|add] my [mother's|husband's|kid's|dad's] [chart|page] [under|from|on] my own login",
            "my [son|daughter] turned [13|18] and I [lost access|can't see anything|am blocked] online, [is that right|how do I get it back]",
            "I [see|get] someone else's [messages|name|page] when I open the [app|portal]",
        ),
        "screen": (
            "every time I [click|tap|press] [messages|upload|the visit] the [portal|app|screen] goes [blank|white|back to start]",
            "where on the [site|app|portal] do I find [the lab page|my old visits|the summary], the menu [changed|is gone]",
            "[tried to|trying to] upload a [photo|picture|pdf], the [app|website] [hangs|says too big|fails] [every time|since <ago>]",
        ),
        "alerts": (
            "please stop [the texts|the emails|the robot calls], I [get five a day|never signed up|only want email]",
            "I no longer get [reminders|an email|alerts] when [something new is posted|you write], [did a setting change|how do I turn them on]",
            "please [close|delete|remove] my online profile, I [don't use it|am worried about hackers|want paper only]",
        ),
    },
    "transport": {
        "ride": (
            "I don't drive [any more|since the stroke|at night], can [someone pick me up|you arrange a ride|you send a car] <when>",
            "need a ride to [the clinic|dialysis|<doctor>] <when> [and back|from <street>], [there is no bus|my son is away]",
            "is there [a shuttle|a volunteer driver|a car service] for [seniors|people like me] out [our way|in the hills]",
            "I need a van that takes a [wheelchair|scooter|stretcher] <when>, [two of us|with my aide|pick up at eight]",
        ),
        "late": (
            "the driver [never came|was 40 minutes late|went to the wrong door] <past> and I [had no way to get there|sat in the cold]",
            "my [pick up|ride|van] was for [9|10|2] and [nobody|no driver] is [here|outside], [where is the car|who do I call]",
            "waited [an hour|ages] in the lobby for the ride home <past>, [please tell the company|is there another one]",
        ),
        "change": (
            "please [move|change] my [ride|pick up|van] <when> to [half an hour earlier|noon|the side door], [the driver can ring|I use a walker]",
            "I [no longer need|can skip] the [van|ride|driver] <when>, my [niece|neighbor] is driving me",
        ),
        "parking": (
            "where [do I|can I|should we] park for [the <test>|<doctor>|the east building], [is it free|any spots for disabled]",
            "which [bus|train|exit] [stops|gets me] [nearest|closest] to your [building|front door]",
            "is there a [ramp|lift|step free way] from the garage, I am [on crutches|in a wheelchair|slow with my walker]",
        ),
        "money": (
            "do I get [gas|taxi|bus fare|mileage] [paid back|money] for coming [so far|every week], who signs the slip",
            "the taxi to the <test> was <amount>, [can I hand in the slip|does anyone pay for it]",
        ),
    },
    "device": {
        "sugar": (
            "my [sugar meter|glucose meter|sensor] [shows error 4|reads way off|stopped|won't pair with my phone|went dark <past>]",
            "[almost out of|running out of|last box of] [test strips|lancets|pen needles|sensors], please [order|send] more",
            "the pump [alarm|beep] [won't stop|came on twice last night], I [changed the battery|filled it again]",
        ),
        "sleep": (
            "my [cpap|sleep machine] [mask leaks|hose split|is too loud|dries my nose], [is there another size|can I get parts]",
            "the cpap company [says|wants] [a new order|proof that I use it|the settings] from <doctor>",
        ),
        "walk": (
            "the [walker|wheelchair|rollator|cane] [wheel came off|is too short|brake is loose|does not fold], who [repairs|replaces] it",
            "[brace|boot|splint|sling] for my <body> [rubs|is too big|broke], [can I get another|do you have a smaller one]",
            "could I [get|rent|borrow] [a shower chair|a hospital bed|crutches|a raised seat] for [home|a few weeks|my mother]",
        ),
        "monitor": (
            "which [blood pressure machine|blood pressure monitor|scale|monitor] should I [buy|get|use], mine [gives odd numbers|is ten years old]",
            "where do I [return|drop|bring back] the [heart monitor|recorder|24 hour cuff], it is due <day>",
            "the [patch|sticker|wire] of the heart recorder [fell off|itches|came loose], [do I start over|can I tape it]",
        ),
        "other": (
            "[oxygen|the oxygen tank] [runs low|hisses|hums], the supplier [does not answer|needs your order]",
            "out of [catheters|bags|pads|tubing], the supply company [needs a signature|sent the wrong size]",
            "my [hearing aid|nebulizer|spacer] [whistles|is cracked|stopped working|got wet], do I [bring it in|order one]",
        ),
    },
    "surgery": {
        "before": (
            "my <operation> is <when>, when do I stop [eating|drinking|my <drug>]",
            "do I [shower with the special soap|take my <drug>|fast] the [morning|night] before the <operation>",
            "I have [a cold|a cough|a cut on my leg], can the <operation> <when> [go ahead|still happen]",
            "what do I bring <when> for the <operation>, do I [stay the night|need someone with me]",
        ),
        "wound": (
            "the [stitches|staples|dressing|incision] from my <operation> [look red|are leaking|came loose|itch], day [four|five|six]",
            "when do the [stitches|staples|drain] come out after the <operation>, [can I get it wet|it pulls]",
            "[fever|more pain|bleeding] [three|four|five] days after the <operation>, is that [normal|to be expected]",
        ),
        "after": (
            "how long after [the|my] <operation> until I can [drive|lift my kids|fly|swim|go back to work]",
            "[two|three] weeks after my <operation> and still [limping|tired|constipated|no feeling around the scar]",
            "when do the exercises start after the <operation>, [nobody told me|the sheet is lost]",
        ),
        "date": (
            "still [waiting|no word] on a date for my <operation>, the hospital [said weeks|does not call back]",
            "can the <operation> be [earlier|after the holidays|in <month>], [it gets worse|work is busy]",
            "who [does|performs] the <operation>, <doctor> or [someone I never met|a trainee], and [how many has he done|where]",
        ),
        "doubt": (
            "not sure about the <operation>, is there [another way|harm in waiting|something to try before]",
            "scared of [being put under|the anesthetic] for the <operation>, last time I was [sick for hours|confused for a day]",
            "what are the [risks|odds|chances] with the <operation> at my age, my [wife|son] is worried",
        ),
    },
}
