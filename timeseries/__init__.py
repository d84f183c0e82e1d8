"""Time series: forecasting, classification, anomaly detection and imputation. Not built yet."""
