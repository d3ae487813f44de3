"""Orders: an event-sourced aggregate and the saga that takes it through stock and payment."""
