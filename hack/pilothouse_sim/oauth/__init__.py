"""An authorization server that a stand-in mounts: its vendor's own paths, words and habits, one set of rules.

    oauth = OAuth(SERVICENOW, people={"employee@acme.example": "Erin Employee"}, static={"token": "employee@…"},
                  state_dir=…, clock=…)
    oauth.install(app)                 # after ``Sim.install``: consent page, token endpoint, …, /__sim/oauth
    caller = oauth.caller(request)     # whose bearer token the request carries; None: 401 in the vendor's words
    caller.has("useraccount")          # scopes; True for a static token

``profiles`` says what differs between vendors, ``grants`` keeps codes and tokens, ``assertions`` reads JWTs, ``page``
is the consent page, ``server`` the HTTP side.
"""

from pilothouse_sim.oauth.grants import Caller
from pilothouse_sim.oauth.profiles import JIRA, OKTA, SALESFORCE, SERVICENOW, App, Profile
from pilothouse_sim.oauth.server import OAuth

__all__ = ["JIRA", "OKTA", "SALESFORCE", "SERVICENOW", "App", "Caller", "OAuth", "Profile"]
