"""Importing this starts TensorFlow, quietly: every flow does so before whatever else imports it, for whoever runs the flow."""

from tasks.process.quiet import start_tensorflow

start_tensorflow()
