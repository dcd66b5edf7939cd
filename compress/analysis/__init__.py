"""The variance gap law: statistics of features, their correlation with robust accuracy, the figure."""
