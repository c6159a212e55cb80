"""What is known of a night, while it runs and when it is over.

result            how it came out: night.json, the page `night`, the events
alert             what is to be looked at, by thresholds that are settings
pace              how long a row takes, beside earlier nights
evaluation        the figures of a model on a test split
class_means       mean image and mean picture of each method, by class
contract_facts    what the model's contract says, for people
events            events for the server's automations
progress          how far it is: the flow reports, whoever listens shows it
explanations_bar  the artifact `explanations`
log_fields        the night and the stage that a log line belongs to
outage            a server that goes away costs some of the record, never the night
"""
