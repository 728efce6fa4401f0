"""Words that tell how hard a request is: what it wants done, not what it is about. Pure data.

English first, then the German, Spanish and French that people mix in. Inflections are made from the plain forms. What a
person says of tiers, models, importance or difficulty is not here: nobody gets a larger model by asking for one.
"""

from __future__ import annotations

from enum import Enum


class Sort(Enum):
    """What a word says of a request."""

    WRITE = "write"
    """Changes something, where it begins a clause."""
    JUDGE = "judge"
    """Compares, weighs, finds causes."""
    OPINION = "opinion"
    """Makes a question one of judgement: worth, too much, deserve."""
    MAKE = "make"
    """Plans or works something out, where it begins a clause."""
    DIGEST = "digest"
    """Makes one text out of another."""
    SCOPE = "scope"
    """All that fits a description."""
    CONDITION = "condition"
    WE = "we"
    """The organisation's own matters, rather than one's own."""
    DEGREE = "degree"
    """More, most, better: needs a measure over several things."""
    MATTER = "matter"
    """What only several records give together: churn, risk, workload."""


_VERBS: dict[Sort, str] = {
    Sort.WRITE: """
        create open file raise log report add make start update edit change modify set rename adjust bump delete
        remove erase drop void comment note reply write tell inform notify let assign give hand close resolve
        finish reopen approve accept confirm reject decline deny move put take share invite send order buy
        request book reserve schedule block cancel abort unlock lock reset suspend deactivate activate grant
        revoke attach upload link connect mark flag tag label merge submit pay bill post publish page snooze
        mute ack acknowledge escalate enter append push swap turn unassign install enrol archive restore wipe
        offboard onboard transfer route pull bring call remind rebook withdraw register subscribe unsubscribe
        credit refund store switch stop release rotate offer do use extend answer forward undo keep ask sign
        restart copy proofread correct expand renew adapt print check-in log-in""",
    Sort.JUDGE: """
        compare contrast analyse analyze investigate evaluate assess weigh prioritise prioritize rank correlate
        reconcile recommend suggest propose advise forecast predict simulate estimate diagnose explain interpret
        relate prevent improve optimise optimize decide differ justify categorise categorize explore identify
        determine conclude affect hurt influence contribute disagree deviate threaten benefit contradict verify
        trace brainstorm""",
    Sort.OPINION: """
        deserve learn reduce promise complain worry suffer struggle waste outperform rely""",
    Sort.MAKE: """
        plan prepare prep design develop organise organize reorganise reorganize arrange split compile assemble
        outline migrate consolidate clean tidy sort spread balance combine handle produce think catch brief map tune
        review audit cluster group check benchmark redo settle coordinate negotiate automate choose pick narrow
        calculate quantify model gather collect protect compose rethink streamline simplify restructure
        redesign visualise visualize chart plot derive infer extract classify score shortlist scope validate
        cross-check investigate research survey mediate test monitor describe""",
    Sort.DIGEST: """
        summarise summarize sumarize condense translate rephrase rewrite shorten sum digest paraphrase""",
}
_WORDS: dict[Sort, str] = {
    Sort.SCOPE: """
        all every each everyone everybody everything whole entire both several various anyone whoever whichever
        jeder jede jedes alle alles sämtliche todos todas tous toutes chaque""",
    Sort.CONDITION: """
        if unless except excluding otherwise else provided depending considering given without only but despite
        although though however instead unlike whose falls wenn außer sofern sonst si sauf salvo excepto""",
    Sort.WE: "we our us ours wir unser unsere unseren unserer nuestro nuestra nuestros nous notre nos",
    Sort.DEGREE: """
        most best worst biggest largest smallest fairest better worse fewer fairer higher lower likely likeliest top
        frequent frequently rarely typical trend trends increase decrease increased decreased doubled grew growth
        dropped development fair consistent unusual valuable important common similar conflict conflicts
        consistently mehr meisten besten mejor meilleur""",
    Sort.MATTER: """
        revenue churn cost costs usage risk risks impact option options alternative alternatives proposal proposals
        strategy forecast roadmap concept analysis comparison criteria dependencies dependency workload overload
        capacity efficiency savings satisfaction performance budget scenario scenarios priorities gap gaps
        differences trade figures numbers themes patterns pattern duplicates feedback experience skills deadlines
        quality insights lessons findings recommendation recommendations improvements pros cons decisions conversion
        prices spending overtime negotiation""",
    Sort.OPINION: """
        worth healthy competitive normal trouble attention unhappy odds behind belong sense cause causes reason
        reasons bottleneck bottlenecks faster slower cheaper easier safer quicker stronger weaker unusual
        noisy strange afford avoid avoided avoidable avert profit profitable speaks matters matter harm harmful odd
        weird suspicious serious severe realistic reasonable sensible sustainable plausible credible feasible viable
        promising useless effective efficient ineffective inefficient satisfied dissatisfied frustrated overloaded
        understaffed overworked underused redundant outdated obsolete vulnerable complicated confusing unclear
        ambiguous contradictory inconsistent busier weak weakest strongest smart smartest smarter wise wisest
        clever suitable appropriate adequate sufficient insufficient excessive unfair biased consequence
        consequences argument arguments idea ideas view opinion opinions thoughts damage effect effects effort waste
        potential drawback drawbacks downside downsides upside advantage advantages disadvantage disadvantages
        strength strengths weakness weaknesses threat threats blocker blockers obstacle obstacles challenge
        challenges concern concerns complaints objections success failures mistake mistakes losses assumption
        assumptions hypothesis evidence prove proof indicator indicators signals symptom symptoms
        correlation prospects morale mood reputation readiness resilience win outperform underperform
        endanger jeopardise fits fit convince persuade regret tempting crucial decisive harder hardest easiest
        sensibly wisely rightly realistically lessons versus against losing Ursache Ursachen Gründe
        Abweichungen vorschlägen senken sinnvoll lohnt améliorer mejorar""",
    Sort.JUDGE: """
        vergleiche vergleichen analysiere erkläre bewerte prüfe compara analiza évalue verbessern recomienda""",
    Sort.MAKE: "bereite vorbereiten plane entwirf stell prépare planifie prepara planifica",
    Sort.DIGEST: "summary fasse zusammenfassen übersetze traduis résume resume traduce",
    Sort.WRITE: """
        erstelle erstellen öffne schließe schliesse lege leg trage eintragen ändere lösche bestelle buche beantrage
        storniere verschiebe setze reserviere stellen einschalten schick schicke sende crea cierra borra pide
        reserva crée ferme supprime commande""",
}


def _inflections(verb: str) -> set[str]:
    stem = verb.removesuffix("e")
    forms = {verb, f"{verb}s", f"{stem}ed", f"{stem}ing"}
    if verb.endswith("y") and verb[-2] not in "aeiou":
        forms |= {f"{verb[:-1]}ies", f"{verb[:-1]}ied"}
    if verb.endswith(("s", "x", "ch", "sh")):
        forms.add(f"{verb}es")
    if verb[-1] in "gnptdm" and verb[-2] in "aeiou":
        forms |= {f"{verb}{verb[-1]}ed", f"{verb}{verb[-1]}ing"}
    return forms


def _index() -> dict[str, frozenset[Sort]]:
    found: dict[str, set[Sort]] = {}
    for sort, verbs in _VERBS.items():
        for verb in verbs.split():
            for form in {verb} if sort in (Sort.WRITE, Sort.MAKE) else _inflections(verb):
                found.setdefault(form, set()).add(sort)
    for sort, words in _WORDS.items():
        for word in words.split():
            found.setdefault(word.lower(), set()).add(sort)
    return {word: frozenset(sorts) for word, sorts in found.items()}


SORTS = _index()
"""Small-letter word → what it says."""

_SYSTEMS = {
    "service desk": "incident incidents inc req ritm chg desk servicenow outage catalog",
    "tickets": "jira issue issues bug bugs backlog sprint sprints epic epics story stories milestone ticket tickets",
    "customers": """
        salesforce account accounts customer customers deal deals opportunity opportunities lead leads case cases
        pipeline renewal renewals crm sales""",
    "identity": "okta mfa factor factors login logins password access groups apps app sso permissions",
    "people": """
        hr workday vacation leave payslip salary salaries holiday timesheet timesheets goals reviews reports hiring
        headcount starters candidates candidate interview interviews positions""",
    "money": """
        invoice invoices purchase supplier suppliers expense expenses bill bills budget spending cash netsuite
        quotes credit accruals contracts finance""",
    "calendar": "calendar meeting meetings call appointment appointments agenda slot room rooms standup",
    "operations": """
        alert alerts monitor monitors monitoring deploy deploys logs on-call pagerduty datadog errors latency
        release releases""",
    "documents": """
        wiki page pages document documents contract nda dpa runbook handbook confluence file files folder minutes
        roadmap""",
    "code": "github repo repository commit commits branch pull pr",
    "devices": "laptop laptops phone devices hardware",
    "marketing": "newsletter campaign campaigns hubspot survey webinar nps",
}
SYSTEMS = {word: system for system, words in _SYSTEMS.items() for word in words.split()}
"""Small-letter word → the kind of system that knows of it. A hint: no connector needs to be there."""

_OPENERS = (
    "please pls kindly can could would you i we to and then also just now ok okay great so if sorry bitte me let's "
    "need want must should will shall no"
)
OPENERS = frozenset(_OPENERS.split())
"""Words that may stand before the verb of a clause."""
