"""The HTTP interface: routes, messages, guard, pages."""
