"""The shop's own pages, shown in place of the generic ones: its charts, and its customers, orders and sessions."""
