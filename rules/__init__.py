"""Numbers to action: the policy and the decision. Pure."""
