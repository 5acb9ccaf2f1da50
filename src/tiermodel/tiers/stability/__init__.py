"""The stability rule: band, confirmations, minimum stay and downgrade grace."""
