"""A sealed night in other people's hands.

mlflow_run  the night as a run of an MLflow tracking server
"""
