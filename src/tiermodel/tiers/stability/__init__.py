"""The stability rule 升降级稳定规则: its state machine, grading with it, and its choice by a movement budget."""
