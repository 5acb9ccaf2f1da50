"""Read tables strictly (sources), hold them to a contract (contract), write results whole or not at all (output)."""
