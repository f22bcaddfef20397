"""Notifications: who is told what of the events in the log, in which words, by which way.

A channel is fed from the log as a sink is (``broker/audit/sinks.py``): at least once, in order.
"""
