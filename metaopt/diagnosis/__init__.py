"""What the estimators of a meta-gradient are worth: their variance, bias and cost at a theta."""
