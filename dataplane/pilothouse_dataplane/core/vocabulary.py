"""Which words of the office go together: what an employee says, and what systems call it. Pure data.

One group a line. ``FAMILIES``: forms of one word, which endings alone don't bring together. ``RELATED``: words that
stand for one thing, or of which one makes the other likely; a word may be in several groups. ``word_word`` is a phrase;
``PHRASES`` names those that stand for one word, which comes first.
``>`` leads one way: those on the left make those on the right likely, not the other way round. Groups are general: no
system's own tool is meant, those say more of themselves in ``Tool.keywords``.
"""

from __future__ import annotations

STOP = """
a about all also am an and any are as at be been but by can could did do does for from give had has have he her hers
hi hello him his how i if im in into is it its just let like me mine my need no not of on one or our out please pls
she should so some something than thank thanks that the their them then there these they thing this those to up us
want was we were what when where which who whom whose will with would you your yours via using use used return returns
user users id ids name s t d ll m re ve e g example needs got yes ok okay next last previous today tomorrow yesterday
tonight now again already still yet soon really very too only ever even maybe else week month year morning afternoon
evening noon monday tuesday wednesday thursday friday saturday sunday january february march april may june july
august september october november december
"""
"""Words that say nothing of what is wanted."""

COMMON = """
able above accept according across act actual add after age ago agree ahead air allow almost alone along already
although always amount another anybody anyone anything anyway appear area around arrive ask away back bad base be
become before begin behind believe below best better between big bit both bottom bring build busy buy care carry catch
cause certain chance check choose city clear close come common complete consider contain continue correct country
couple course cover current cut daily day deal decide deep detail different difficult directly done door double down
draw drive drop due during each early easily easy eat either else empty end enough enter entire especially evening
every everybody everyone everything exact exactly except expect explain extra face fact fall family far fast feel few
figure fill final find fine finish fit five floor follow forward four free fresh friend full fully further general go
gone good great ground grow guy half hand happen happy hard head hear heavy help here high hit hold home hope hot hour
house human idea important include inside instead interest involve join keep kind know large late later latest lay
lead learn least left less level lie life lift light likely line little live load local long longer look lose lot low
main major make man many mark matter mean meanwhile mention middle million mind minute miss moment money more most
mostly move much must near nearly necessary never new nice night nobody none nor normal nothing notice number object
off often old once open ordinary other otherwise outside over own pair part particular pass past people perfect
perhaps period person pick piece place play point possible pretty probably problem proper properly pull push put
quarter question quick quickly quite raise rather reach ready real reason receive recent relate remain remember rest
result right round run same save say second see seem separate serious serve several shall short side similar simple
simply since single sit situation six size slightly small someone sometimes somebody somewhere sort sound speak
special stand start state stay step stick stop straight strong stuff such suddenly sure system take talk ten term
third though thousand three through throughout together tomorrow top total toward true try turn twice two type under
understand unless until upon usual usually various wait walk watch way weekly well whatever whether while whole why
wide win wish within without wonder word work world worse worst wrong yearly young
"""
"""Words that people use for anything: that few tools know one of them does not make it telling."""

NOUN_AFTER = """
a an the my our your his her their this that these those last first next any no of in on for another each every new old
open s
"""
"""What comes after one of them is a thing, not something to do."""

VERB_AFTER = "to and then please pls you can could not i we let just also"
"""What comes after one of them, or first, is something to do."""

TWOFOLD = "update schedule log report open change file record issue post request set view name"
"""Things, and things to do."""

ACTIONS = """
create add new make open file raise log register draft compose insert generate issue book reserve schedule invite
create upload refer order request submit start give put raise
read get show list search find view retrieve fetch look query browse download see check
update add put raise edit change modify set rename adjust correct patch move reassign transition bump extend postpone
update replace fix mark push turn
delete remove erase drop cancel revoke void discard unassign withdraw purge trash unsubscribe
comment reply note respond answer tell write mention remark message
decide approve reject accept decline deny
"""

FAMILIES = """
approve approval approver approved
assign assignee assignment assigned
resolve resolution
create creation
delete deletion
remove removal
suspend suspension
activate activation
notify notification
invite invitation invitee
reserve reservation
register registration registrant
record recording
cancel cancellation
escalate escalation
submit submission
attend attendee attendance
participate participant
configure configuration config
enroll enrollment enrol
schedule scheduled
subscribe subscription subscriber
compensate compensation
deliver delivery
transcribe transcript
sign signer signature signatory signed
pay payment payer paid
book booking
organize organizer organization organisation
reimburse reimbursement
apply application applicant
recruit recruiter recruiting recruitment
refer referral
interview interviewer interviewee
offer offering
promote promotion
review reviewer reviewee
collaborate collaboration collaborator
permit permission permitted
authenticate authentication authenticator
describe description
decide decision
respond response responder
remind reminder
expire expiry expiration
attach attachment
publish publication published
summarize summary summarise
state status
analyse analysis analyze analytics
arrive arrival
own owner ownership
propose proposal
compete competency
restrict restriction
visit visitor
meet meeting
send sent
buy bought
write wrote written
take took taken
leave left
hold held
tell told
give gave given
know known
steal stole stolen
lose lost
break broke broken
forget forgot forgotten
find found
begin began begun
spend spent
hire hiring hired
travel traveling travelling traveler
ship shipping shipment
park parking
train training
plan planned planning
set setting
lock locked
dismiss dismissal
complain complaint
merge merging merged
require required requirement
maintain maintenance
install installation
connect connection
"""

RELATED = """
presentation screen projector > incident
finance sales marketing engineering legal procurement > department
say said read_out > content download get
training > recording
get_signed have_signed lease > envelope sign
status value > field describe picklist
publicly > praise feedback
time_told > event freebusy calendar
note_down jot_down write_down put_down > create
available availability free > freebusy
catch_up catchup lunch coffee sync standup townhall > event meeting
won_t_come can_t_come can_t_make_it can_t_attend not_attend > respond decline event
dentist doctor birthday anniversary reminder > event
plane airport airline boarding flight ticket_home > trip itinerary
pager beeper > oncall page
cover stand_in > override
notify > monitor alert notification
alert alarm > incident monitor
rate throughput per_second rps qps > metric query
throw exception stack_trace > log
lease rental tenancy statement_of_work > envelope sign
lawyer legal auditor partner client > collaboration
changed > version history
newsletter > unsubscribe email
overspend underspend over_budget within_budget > budget
thank thankful grateful > feedback praise
sit seat floor > desk reserve
claim claim_back expense_claim lunch dinner > expense expense_report
ill sick unwell > time_off
working_from_home wfh remote > working_hours
prepare onboarding starter joiner new_hire > order create assign
provision onboard > app assign
our_company_account company_login > sso app
branch > pull_request
publish ship cut > release
hour > time_entry timesheet
customer_ticket > ticket comment
fix workaround solution > knowledge
apply cv resume > candidate application
tidy clear free_up > delete
cancel clear > event reservation
resend remind > update notification
flicker screen projector scanner scan label_printer terminal battery charger cable boot startup keyboard > incident
firewall router switch gateway certificate dns backup cluster > change incident ci
department team division finance sales engineering legal > user employee
tried attempt attempted night strange unknown > log
repository_file source_file branch > content
queue backlog inbox > view list
dinner hotel taxi train > expense receipt
bill invoice > receipt
appointment > event
database marketing_database > contact
mailing announcement > email
supplier_address vendor_address > vendor
accomplished achieved > weekly_update update
everybody everyone all_staff whole_office > announcement group
elevator lift toilet kitchen heating air_conditioning cleaning facilities > announcement incident
earn salary income > compensation payslip
offline flicker blank freeze hang crash unresponsive glitch malfunction > not_working incident
defective faulty flaky out_of_order > not_working incident
cannot unable > not_working
hr human_resources > worker
finance accounting > invoice account
above superior > manager
unassigned > assign
subpage child_page > child page
watch posted follow > watcher
remark > comment
save > upload
sync standup recurring series > event instances
to_do todo action_item > action task
get_done accomplish achieve > update accomplishment
wife husband spouse partner kin > emergency contact
price cost > catalog amount
draft write compose > create
post announce publish broadcast > announcement
able_to_open able_to_use able_to_access need_access get_access have_access > app assign access
duty shift rota > schedule oncall
automatically always default > setting
get_into hack intrude > login log
take_off take_out > remove delete unassign
no_longer any_longer any_more not_any_more > remove delete unassign
create new add make open file raise log start register set_up put draft compose report submit
search find look list show browse display query which look_up get any
get read fetch view show detail open retrieve status check see
update edit change modify set rename adjust patch correct
delete remove erase drop purge trash discard get_rid_of
delete cancel
cancel void withdraw recall revoke call_off
comment note reply remark answer respond tell
assign reassign allocate hand put owner
close resolve finish complete done solve fix fixed
approve accept confirm sign_off ok okay
approve > approval task decide
reject decline deny refuse
approve reject decide
move transition transfer
move > update patch
rename > update
reopen open_again > transition update
send > create post publish share
send deliver email mail message
join enter enrol
connect link relate
merge combine join
copy duplicate clone
share invite access permission
share > acl collaborate link
download export content
upload attach
start begin run trigger launch
rerun run_again kick retry restart > run trigger
stop end terminate
restore recover undelete bring_back undo
revert roll_back rollback go_back > version restore promote
call phone ring dial
count how_many number > search query list report
count how_many > statistics total
post publish announce
remind reminder notification nudge
history version log audit past
who > user owner people person
whom > user owner people person
when > schedule date time
where > search find list
ticket incident issue case request
issue bug task story defect
bug defect error fault
not_working > incident create report problem ticket knowledge
broken dead crash frozen freeze jam down slow fail failed failing stuck outage error > not_working incident
howto > knowledge article search guide
howto instruction guide documentation tutorial manual
outage down incident unavailable
alert alarm monitor incident page
page > incident oncall
severity priority urgency urgent
priority important
employee person people colleague coworker worker member staff user
manager boss supervisor report_to line_manager lead
direct_report subordinate team
direct_report > worker
report_to > direct_report
customer account client company organization
contact lead prospect person
vendor supplier
deal opportunity sale
opportunity pipeline stage forecast quota
revenue sale query
account_manager account_executive account_owner look_after customer_owner > account owner
laptop computer notebook pc machine device
device asset hardware
laptop monitor headset mouse keyboard phone screen docking_station > hardware catalog device
server host machine database
article knowledge kb guide documentation doc faq policy
wiki page confluence
page document
document file
document > page contract
runbook handbook playbook onboarding minutes architecture decision > page wiki document
blog post blog_post
factor mfa 2fa token authenticator otp yubikey two_factor second_factor
password passphrase pwd credential
login sign_in authentication
login > log user
locked_out lock unlock
app application software tool
app licence license access
licence license > app assign
access permission right role
permission > collaborator member restriction
group team distribution_list
leaver offboard leave_company last_day quit resign > deactivate
joiner onboard new_hire > create
order buy purchase procure
purchase_order po
order > catalog purchase request
ordered > request order delivery
delivery parcel package mail shipment courier
attachment file upload
email mail message
mail > email
newsletter mailing email campaign
open_rate click > statistics email
unsubscribe opt_out subscription
personal_data gdpr privacy erase
invoice bill
bill invoice payable vendor
invoice receivable customer
overdue unpaid due > invoice
payment pay paid transfer money
pay > bill payment
credit_memo credit_note refund
refund reimburse
journal ledger accounting posting bookkeeping
journal > entry
accrual provision depreciation > journal entry
budget spend cost actual
cost_center department
exchange_rate currency rate
account ledger
tax vat
meeting call conference
meeting event appointment
event appointment calendar
meeting > calendar
call > meeting phone
slot free availability free_busy busy
free > freebusy availability
freebusy availability
room meeting_room space
standup workshop lunch sync interview review > event calendar meeting
clash conflict overlap > calendar event freebusy
invite invitation event
invitation > respond
decline accept > respond
guest visitor invite
guest attendee participant
attend participant attendee join
schedule book reserve plan
book > reserve create
block > event create
reserve reservation book
desk workplace seat workspace
office location building site
onsite in_the_office office
park car parking_spot
badge access_card key_card
locker storage
occupancy full utilization busy crowded
recording video
video meeting
transcript record
voicemail voice_mail message
out_of_office auto_reply away automatic_reply vacation_message
working_hours availability
time_off vacation pto holiday leave absence day_off days_off sick
holiday bank_holiday public_holiday
leave parental maternity paternity sabbatical
sick ill illness
balance left remaining remain
payslip pay_slip salary wage payroll pay_stub
salary pay compensation bonus
bank_account iban payment_election
address phone contact_information
emergency_contact next_of_kin
benefit insurance pension
timesheet time_entry hour time_sheet
title position role
position job vacancy opening role
job recruit career hire
candidate applicant
candidate apply > application
applied applicant > application
cv resume
interview candidate
feedback scorecard interview
next_round next_stage > advance application
friend > refer referral
offer candidate
feedback praise kudos recognition thank
praise kudos recognition shout_out > feedback
goal objective okr key_result target
progress update
performance_review review appraisal
agenda talking_point topic
promotion career level competency growth
development growth
career_level competency
weekly_update accomplishment status_report
expense receipt reimburse spend
expense expense_report
reimburse > expense report
receipt bill invoice
card transaction charge credit_card
trip travel flight hotel itinerary
flight hotel train > trip itinerary
mileage kilometer mile per_diem
advance cash
travel_request travel approval
on_call oncall shift rota duty
shift override schedule swap cover take_over
escalation_policy escalate
acknowledge ack
acknowledge > update
snooze mute silence pause
mute downtime silence maintenance
maintenance downtime window
responder help
stakeholder status_update
postmortem incident
metric latency cpu memory throughput usage performance timeseries graph error_rate
latency cpu disk throughput p95 p99 > metric query
log trace error
dashboard chart graph
slo availability uptime sla
alert > monitor
threshold > monitor create
synthetic test
host server
repository repo code
code source
code function class api > repository
pull_request pr merge_request
pull > branch
merge > pull
branch commit
build pipeline ci workflow deploy action job
ci build > run workflow
release version tag
collaborator access
envelope contract agreement nda signature document
contract agreement nda dpa msa > envelope sign template
sign > envelope recipient
signed > envelope document
esign signature
recipient signer
audit_trail audit
pdf document download
template form
folder directory
file document spreadsheet deck presentation slide pdf xlsx docx pptx
shared_link link url
link > shared_link
public > shared_link
folder file
campaign marketing advertisement
visitor traffic website
form submission
list segment audience
opportunity lead contact > record query
website > record
field column attribute property
field > describe
picklist dropdown choice
record object entry
kind type
custom_field field
revenue > query account
top > query report
overview summary
overview > get account
summary describe
approval waiting pending
pending waiting outstanding open
pending waiting > list
change deployment deploy release
change_request change
ci configuration_item cmdb
service_catalog catalog
service_desk helpdesk support
support ticket
watch follow
label tag
status progress
priority > update edit
subscriber watcher
satisfaction rating csat
rating score
conversation comment
spam junk
macro canned
customer > contact
complaint angry dissatisfied > case ticket
link > relate
blocked block > link
duplicate > link
depend > link
project board space
me myself
profile account
stolen lost compromised > suspend
dashboard > app
report analysis analytics number
report total
result metric statistic performance
announcement news
wiki intranet > confluence sharepoint notion page
confluence notion sharepoint > wiki page
zoom teams webex > meeting call video
zendesk freshdesk > ticket support
helpdesk service_desk it_support > servicenow incident
github gitlab bitbucket > repository
pagerduty opsgenie > oncall incident alert
datadog grafana newrelic splunk > monitor log metric
docusign > sign envelope
box dropbox onedrive drive > file folder
hubspot marketo mailchimp > campaign email contact
netsuite sap erp > invoice vendor account
greenhouse lever > candidate job
lattice > goal review feedback
workday > worker absence payroll
concur > expense trip
envoy > visitor desk
crm > salesforce account opportunity contact
cmdb > configuration_item ci asset
directory > user employee
proposal suggest propose
suggest > propose
swap exchange trade > override move
answer > respond
look_like view
colleague teammate coworker peer
suggest recommend
chat message dm
postpone reschedule delay push_back move > patch update event
reschedule shift > event
bring_forward earlier > patch
every recurring repeat weekly daily > instances event
conference_room boardroom projector whiteboard > room
holiday_calendar > holiday
workshop kickoff townhall all_hands offsite retro retrospective brainstorm catch_up > event meeting
appointment interview session > event
agenda > event meeting
minutes summary > meeting
decided decide agreed > summary
missed > summary recording transcript
attended attendance > participant
joined > participant
watch replay > recording
join_link dial_in invite_link > invitation meeting
link url
dial_in > phone meeting
missed_call > call log
annual_leave paid_leave unpaid_leave bereavement jury_duty > time_off absence leave
flu unwell doctor > sick time_off absence
vacation_days leave_days > balance
wage paycheck income > payslip pay
raise bonus stock > compensation
relocate move_house new_address moved > home address contact
iban swift account_number > bank_account payment
health dental retirement > benefit
spouse partner > emergency_contact
reportee > direct_report
clock_in clock_out hours_worked > time_entry timesheet
overtime > timesheet
reimbursed reimbursement > expense report
taxi uber meal lunch dinner lodging airfare > expense
euro dollar pound usd eur > amount
corporate_card company_card > card transaction
per_diem allowance > mileage rate
boarding_pass layover > trip itinerary
preapproval pre_approval > request approval
supplier vendor
purchase_order requisition
order > purchase_order
bill_customer charge_customer > invoice create
receivable owed owe outstanding > invoice
did_pay paid_us > customer payment invoice
paid > payment
customer_paid > customer_payment
ledger gl > journal account
cogs expense_account > account
fx > exchange_rate
variance forecast > budget
spent remaining left_over > budget
close_books month_end > journal
credit discount > credit_memo
opening headcount requisition > job
vacancy hiring > job posting
applied apply > application applicant
shortlist > application candidate
phone_screen onsite_interview panel > interview
debrief verdict recommendation rating > scorecard
hm recruiter hiring_manager > hiring team
start_date salary > offer
acquaintance friend former_colleague know_someone > referral candidate
kudos shout_out well_done appreciation > feedback praise
quarterly_goal ambition target milestone > goal
progress percent > goal update
appraisal annual_review self_review > review
peer_feedback 360 > feedback request
one_to_one catch_up > one_on_one
bring_up discuss > talking_point
to_do todo action_item follow_up > task action
promoted seniority ladder skill > competency career
learn improve strength weakness > growth development
blocker accomplishment > update
visitor guest client_visit reception lobby > invite visitor entry
courier package parcel post > delivery
hot_desk hotdesk > desk reserve
carpark garage license_plate plate charger > park spot
keycard forgot_badge door > badge access
crowded empty full > occupancy
colleague_in_office here_today onsite > employee onsite
announce broadcast > announcement
escalate > incident responder
wake call_in > responder page
rota roster > schedule oncall
substitute stand_in replacement cover > override schedule
outage down disruption downtime > incident
fire alarm alert went_off triggered > incident
noise noisy flapping > mute snooze
heartbeat uptime > synthetic slo
error 500 502 exception stacktrace timeout > log
graph plot trend > metric query dashboard
spike usage load > metric query
threshold exceed above below > monitor alert
sla error_budget > slo
deploy release rollout ship > release workflow change
build_failed red pipeline_failed tests_failed > run workflow
unit_test pipeline > workflow
diff changeset > pull_request commit
approve_pr lgtm > review pull_request
code_review > review pull
write_access push_access read_access maintainer > collaborator permission
changelog release_notes > release
readme > content repository
snippet function > search code
repo_access > collaborator
counter_sign countersign initials > sign
nda msa sow dpa contract agreement paperwork > envelope
signed_copy executed > document envelope
unsigned awaiting_signature waiting_to_be_signed not_signed > envelope recipient status
typo wrong_address wrong_recipient > recipient update
nudge chase remind > notification reminder
boilerplate standard_form > template
upload put_file > file
spreadsheet excel xlsx csv pptx powerpoint word doc docx pdf image photo deck slide > file
anyone_with_link public_link > shared_link
previous_version older_version yesterday_version > version
trash recycle_bin deleted > restore trash
viewer editor reader > collaboration acl permission
who_has_access who_can_see > collaboration permission member
folder_structure subfolder > folder
mailing blast edm drip > marketing email
subject_line > email
conversion ctr open_rate bounce_rate > statistics
signup sign_up filled_in filled_out survey response > form submission
landing_page > form website
audience segment > list
opt_out doesn_t_want stop_emailing > unsubscribe
forget_me right_to_be_forgotten data_deletion > gdpr
seo visitor pageview session source > traffic
newsletter > email
runbook playbook howto spec rfc adr onboarding > page
written_down documented > page search
wiki_space > space
subscribe follow watch > watcher
confidential private hidden only > restriction permission
diff changed_page last_edited > version
tag keyword > label
boilerplate > template
customer_complaint angry unhappy escalation > ticket case
refund chargeback > payment credit ticket
canned_response template > macro
happy satisfied survey nps > satisfaction
queue backlog > view ticket
junk phishing > spam
thread conversation history > comment
kb faq self_service > article
duplicate same > merge
owner_of who_owns account_manager rep looks_after responsible_for > owner account
prospect lead
won lost closed_won > stage opportunity
quote proposal > opportunity
company customer client prospect
call_back follow_up > task
dataset table > object
schema structure > describe field
mandatory required_field > field describe required
dropdown options picklist > describe field
export_data dump > query
bulk several at_once together > composite
bulk several together > bulk
erp_number external_id external_number > upsert
insert_or_update create_or_update > upsert
phone_number email_address website > contact update
customer_overview before_my_call > account get
ticket_number > get
wait queue > pending
laptop_order new_laptop need_a_new get_me > catalog order
need want > request order
licence subscription > app catalog software
figma tableau slack photoshop acrobat office visio jetbrains > app software catalog
install setup configure > knowledge howto software
mouse keyboard headset monitor dock charger cable phone tablet printer toner laptop > hardware incident catalog
wifi wlan network internet vpn printer outlook teams excel email sap > incident knowledge
projector scanner printer copier > incident
workaround > knowledge
caller customer requester
internal private > work_note
confirm > comment
escalate raise_priority > urgency priority update
cc > watch_list
wrong_team wrong_group reassign_to > assignment_group update
belongs_to configuration > ci
warranty serial_number asset_tag > asset ci
emergency_change standard_change rollback_plan maintenance_window > change
reboot restart upgrade migrate patch > change
delivered arrive arriving shipped > request delivery order
signoff sign_off > approval
log_file screenshot > attachment
lockout too_many_attempts can_t_log_in > unlock login
breach hacked phishing stolen lost_laptop > suspend log
offboarding terminated fired left_the_company leaver > deactivate unassign
rehire came_back back_from > unsuspend
new_phone lost_phone > factor reset
verification_code push_notification okta_verify sms > factor
membership belongs_to part_of > group member
entitlement provision > app assign
deprovision take_away > unassign remove
login_history failed_login suspicious_login > log
profile title department > user get
who_is_in who_s_in > member
take_out kick_out > remove
let_in let_back_in > unlock unsuspend
headline title > summary update
drop_off hand_over > assign
responsible owner > assign
sprint epic backlog board > issue project
stuck blocked waiting > status transition
done finished completed > transition close resolve
triage > assign priority
due deadline > issue get
"""

PHRASES = """
howto: how_do_i how_can_i how_to how_do_we how_do_you how_should_i how_can_we how_does_one instructions_for steps_to
not_working: does_not_work doesn_t_work not_working isn_t_working don_t_work won_t_work doesn_t_start won_t_start
not_working: is_broken is_down
not_working: doesn_t_open won_t_open can_t_print can_t_connect can_t_open can_t_access stopped_working no_longer_works
not_working: keeps_crashing black_screen
not_working: blue_screen is_dead are_down broke_down is_slow very_slow is_stuck error_message not_responding
login: log_in sign_in signing_in logging_in sign_on log_on signed_in logged_in single_sign_on sso
time_off: today_off tomorrow_off week_off monday_off tuesday_off wednesday_off thursday_off friday_off afternoon_off
time_off: morning_off month_off
time_off: take_monday_off take_friday_off take_tomorrow_off take_today_off
time_off: time_off day_off days_off take_off off_work off_next off_from off_on annual_leave
out_of_office: out_of_office outofoffice auto_reply automatic_reply vacation_responder
on_call: on_call oncall on_calls on_duty
one_on_one: one_on_one one_on_ones oneonone oneonones
payslip: pay_slip pay_slips payslip payslips pay_stub
freebusy: free_busy freebusy
report_to: report_to reports_to reporting_to
direct_report: direct_reports direct_report
set_up: set_up setup setting_up
howmany: how_many how_much
timesheet: time_sheet timesheet timesheets time_entry time_entries
voicemail: voice_mail voicemail voice_mails voicemails
comment: add_that write_that say_that mention_that note_that tell_them tell_him tell_her let_them_know let_him_know
comment: let_her_know
cannot: can_t cant cannot can_not couldn_t unable_to not_able_to nobody_can isn_t_able
one_on_one: one_on_one
: right_now tell_me let_me_know show_me i_want i_d_like in_front thank_you
member: who_is_in who_s_in who_belongs_to
"""
