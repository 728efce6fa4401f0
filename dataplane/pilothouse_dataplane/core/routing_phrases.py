"""Phrases that tell how hard a request is, as regular expressions over small-letter text. Pure data.

No repetition stands within another, and what may match any character is bounded: a hostile text costs no more time
than a harmless one of its length.
"""

from __future__ import annotations

import re


def _any(*parts: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(parts) + r")\b")


COURTESY = re.compile(
    r"[ ,.!:;)(?¿¡-]*(?:"
    + "|".join(
        (
            r"hi(?: team| all)?|hey(?: there)?|hello|dear \w+|good (?:morning|afternoon|evening|day)"
            r"|sorry(?: to \w+ \w+| but)?",
            r"quick (?:one|question)|please|pls|ok|okay|and|so|just|but|can you|could you|could someone"
            r"|would you|will you",
            r"kindly|tell me|let me know|i (?:was just |am )?wonder(?:ing)?|just wondering"
            r"|do you (?:happen to )?know",
            r"i(?:'d like| want| need) to know|check|see|look up|whether|if|hope you \w+ a \w+ \w+|i'm new here"
            r"|thanks",
        )
    )
    + r")\b[ ,.!:;)(?¿¡-]*"
)
"""Taken off the front of a sentence, again and again, before one looks at how it begins."""

ASKING = re.compile(
    r"(?:"
    + "|".join(
        (
            r"who(?:'s|se|m)?|when(?:'s)?|where(?:'s)?|what(?:'?s)?|which|is|are|was|were|am|does|did|do|has"
            r"|have|had|will",
            r"how (?:many|much|long|big|full|often|far|old|happy|late|do i|can i|do you|does|to)|any|can (?:i"
            r"|guests|we)|may i|must i",
            r"anybody|anyone|no idea|i(?:'m| am) looking for|i (?:lost|forgot|can't find|don't know"
            r"|can't remember)|remind me",
            r"should i|at what time|wer|wann|wo|wie|ist|was|wie viele?|welche|quand|quel|où|combien|quién|cuándo"
            r"|dónde|cuánto",
        )
    )
    + r")\b"
)
"""How a question after one fact begins."""

READING = re.compile(
    r"(?:"
    + "|".join(
        (
            r"show|display|view|look up|pull up|list|find|search|zeig|get the|would you mind telling me|get me"
            r"|give me|send me|status|link to|latest|open the|my |results|download|read|select",
            r"open (?:\w+ ){0,2}(?:\w*\d|cases|deals|bugs|tickets|issues)|top \w+|number of|total of|owner of"
            r"|address of|end date",
            r"all |last |phone|run the|convert \d|spell|org chart",
            r"i(?:'d like| want) to (?:see|know)|(?:i )?need (?:the|\w+'s) ",
            r"the (?:name|number|date|address|link|phone|status|owner|price|time) ",
        )
    )
    + r")"
)
"""How the wish to see one thing begins."""

REPLY = re.compile(
    r"(?:\s|[.,!?👍👋🙏:)(-]|\b(?:"
    + "|".join(
        (
            r"yes|yep|yeah|sure|ok|okay|no|nope|not now|not yet|thanks?|thank you|thx|ty|please|go ahead|do it"
            r"|do that",
            r"so much|a lot|perfect|great|good|cool|fine|right|correct|exactly|hi|hello|hey|there|hiya|morning"
            r"|afternoon",
            r"evening|bye|cheers|never mind|forget it|leave it|cancel that|stop|wait|that one|go on|go for it"
            r"|sounds|hmm",
            r"the (?:first|second|third|last|other)(?: one)?|works for me|you|it|all|now|then|for today|mate|job"
            r"|both|that's",
            r"for|the|your|quick|help(?:ed|ful)?|much|very|really|was|again|appreciated?",
            r"danke|bitte|ja|nein|dir|hallo|guten|morgen|tag|sí|si|adelante|hola|gracias|oui|non|merci|bonjour"
            r"|that|team",
        )
    )
    + r")\b)+"
)
"""A greeting, thanks, a yes or a no, and nothing else."""

INDIRECT = _any(r"(?:check|see|tell me|know|look|ask|wonder(?:ing)?|find out) (?:if|whether)")
"""A question in another's clothes: its "if" is no condition."""
NO_SCOPE = _any(
    r"cost cent(?:er|re)s?|for everyone or|all hands|all good|that'?s all|at all|after all|first of all|not all"
    r"|all day|all the best|all or|anything new"
)
DEFINITION = _any(r"explain (?:the (?:abbreviation|term|word)|what)")
QUOTED = re.compile(r"[\"“«„]([^\"“”«»„]{0,1500})[\"”»“]")
"""What is passed on: it is not what is wanted."""
FOR_ME = re.compile(
    r"\blet me know\b|\b(?:give|tell|send|show|get|bring|write|hand) me (?:the|a|an|all|my|what|who|when|where"
    r"|how|which|if|it)\b"
    r"|^(?:please |pls )?(?:link to|pull up|open (?:the|my|it)\b|open (?:\w+ ){0,2}(?:\w*\d|cases|deals|bugs"
    r"|tickets|issues)\b|write .{1,80} in [a-z]+$)"
)
"""What begins like a change and only asks to be told."""
SCOPE = _any(
    r"those (?:who|that|in|of|with|whose|which)",
    r"(?:customers|people|users|members|tickets|invoices|bills|accounts|rooms|laptops|team) (?:who|that|whose|which)",
    r"anyone (?:who|in)|the (?:rest|others)",
)
CONDITION = _any(
    r"only if|but not|but only|as long as|so that|in case|taking? .{1,60} into account|but leave|if not"
    r"|not before|not on",
    r"that (?:fit|match|were|was|are|has|have|differ)|who (?:didn't|did not|have|has|had|were|was|moved|asked)",
    r"ask (?:those|the owner|the reporter)|once .{1,40} (?:is|are)|hold the rest|none on|up to \d",
)
SPAN = _any(
    r"compared (?:with|to)|versus|vs|last year'?s?|next year'?s?|this (?:year|quarter|month)'?s?|of the (?:year"
    r"|quarter)",
    r"(?:in|over|for|of|since) the (?:last|past|next|previous) (?:\w+ )?(?:days|weeks|months|quarters|years"
    r"|quarter|year)",
    r"change since|over time|per (?:person|team|region|customer|month|quarter)|while i was away|in the long run",
    r"by (?:region|level|gender|team|product|segment|cause)|for each|of each|der letzten|nächsten \d+|este trimestre",
)
BOUND = _any(
    r"(?:(?:more|less|fewer|larger|higher|lower|longer|older) than|over|under|above|below|within|at least"
    r"|at most|up to"
    r"|exceed\w*|before|after|between|pick|best|top)\s+(?:\w+ ){0,2}[€$£]?\d+"
)
OPEN_ENDED = _any(
    r"why(?!:| thank| not\b)|how come|warum|weshalb|wieso|pourquoi|por qué|(?:what|how|where|which"
    r"|who) (?:\w+ ){0,4}(?:should|could|would) (?:we|the|they|you)",
    r"what should i (?:know|do about|say|focus|choose|offer)|should (?:we|the|be \w+ed)|how (?:can|could|should) we",
    r"how (?:well|healthy|good|bad|is our|are our|did our|does our|we stand)|(?:will|could) we|^are we (?!closed"
    r"|open|in\b|on\b)",
    r"was sollten|sollten wir|going (?:wrong|on)|find out (?!when|where|who)|work out|figure out|sort out"
    r"|clean up|tidy up|write up|put together",
    r"up to date|catch me up|(?:get|bring|set) (?:me|everything) (?:ready|up|to)|get .{1,40} ready|make sure"
    r"|take care|take over|taking over",
    r"look (?:into|at (?:all|how|what|the (?:last|past|usage|revenue|incidents|whole)))|go (?:through|over)"
    r"|work through",
    r"dig deeper|what (?:does|do|would) (?:that|this|it|they) (?:mean|cost)|what (?:changed|happened(?! to my))"
    r"|what would happen",
    r"what do our|would you (?:pick|drop|do|choose)|do you make of|what (?:am|are|is|did) (?:i|we) (?:miss"
    r"|missing)|help me|in common",
    r"based on|according to|in line with|consistent with|follows? what|root cause|pros and cons|bring together"
    r"|make sense",
    r"everything (?:that|of|which|they)|the mess|(?:my|our) options|prepare|handover|turn .{1,50} into"
    r"|with (?:owners|dates|costs|risks|usage)",
    r"do about|deal with|get rid of (?:the |access |people)|look like|would (?:that|it) look|too (?:much|many"
    r"|long|expensive|few|slow)",
    r"belong together|knows most|led to|think through|fair way|(?:make|get) .{1,30} less|reduce the|fix the"
    r"|(?:could|can|should) replace|as you (?:would|see)",
    r"follow the money|be stopped|than (?:planned|expected)|match(?:es)? what|meets? (?:what|our)|is (?:it"
    r"|that) (?:worth|normal|fair|enough)",
    r"same (?:comparison|analysis)|break .{1,20} down|without the|apply it to|anything (?:i should|we should"
    r"|unusual|strange)|los(?:e|ing) (?:money|time|most|so many|customers|deals)",
    r"(?:who|what|which|when|where) (?:\w+ )?(?:should|would|could|might|ought) (?!i |you )|can we (?!get"
    r"|have|use|see)|could (?:the|it|they|this)",
    r"how (?:serious|realistic|busy|likely|hard|risky|safe|fair|reliable|useful|good|bad|satisfied|happy are"
    r"|do the|does \w+'s)",
    r"(?:give|tell|show) me (?:your|three|two|some|a picture|what to|which .{1,30} i (?:can|could|should)"
    r"|where our|how we)|what to say",
    r"side by side|in all places|wherever|go back over|look (?:over|for patterns)|double check|all that"
    r"|really want|up to date|prove it|signs (?:that|of)|tell us about",
    r"wie können wir|finde heraus|any other (?:ideas|options|ways)|what about (?:our|the effect)|cheaper way"
    r"|smartest way|best way to use",
    r"find (?:\w+ )?(?:savings|ways|a way|the reasons?|reasons|duplicates)|worry about",
)
DOCUMENT = re.compile(
    r"\b(?:write|draft|create|erstelle|produce|put together|build|make|turn|prepare|compile)\b.{0,60}"
    r"\b(?:(?<!expense )report|runbook|documentation|business case|overview|fact sheet|lessons|guidelines|story"
    r"|letter to"
    r"|agenda|concept|proposal|review"
    r"|plans?|guide|analysis|forecast"
    r"|answers|talking points|post.?mortem|strategy|roadmap|register|budget|bericht|summary of)\b"
)
"""A document that is made out of much."""
COMPLAINT = _any(
    r"(?:is|are|was) (?:broken|dead|down|stuck|locked|missing|wrong|frozen)|(?:doesn't|does not|can't|cannot"
    r"|won't) (?:\w+ ){0,1}(?:work"
    r"|open|boot|start|print|connect|load|log|scan)|crash\w*|locked out|stopped working|off again|there's no"
    r"|i need (?:an?|access|\w+ days?)|i(?:'d| would) like to take|do the same (?:for|with|there)|i expect"
)
"""Something has to be done, though nobody says what."""
ABOUT_MODELS = _any(
    r"(?:power|powerful|strong|smart|big|large|expensive|better|best|strongest|largest|biggest|smartest|other)"
    r" (?:language )?(?:model|tier|ai|llm|brain)",
    r"think (?:very )?(?:hard|deeply|step by step)|gpt[- ]?\d|claude|opus",
    r"route (?:me|this) to|(?:this|it|that) is (?:a )?(?:very |really |extremely ){0,3}(?:important|complex"
    r"|difficult|hard|urgent)",
    r"very (?:important|complex|difficult|hard)|(?:complex|difficult|hard|important) (?:request|question|task"
    r"|problem)",
)
"""Speaks of the model, or of how hard the request is: the clause is not looked at."""
IDENTIFIER = re.compile(r"\b(?:[a-z]{2,6}-\d{1,6}|(?:inc|req|ritm|chg|kb)\d{4,10}|\d{5,}|[\w.+-]{1,64}@\w)")
CLAUSE = re.compile(r"[.;:!?\n]+\s*|,\s+|\s[-–—]\s|\b(?:and then|and also|and|then|also|plus|after that|und|et|y)\b")
TIER_SET = _any(r"(?:model|tier)[ :=]{1,3}(?:power|mid|fast)")
"""The same, with a sign within."""
PART = re.compile(r"([.!?\n,;:()]+)")
"""Between clauses, for ``ABOUT_MODELS``."""
SENTENCE = re.compile(r"[.:;!?\n)(]+\s*")
WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
