"""What every Polymart service needs and none owns: lifecycle, configuration, RPC, messaging, outbox and inbox."""
