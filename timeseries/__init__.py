"""Forecasting, classification, anomaly detection and imputation of time series.."""
