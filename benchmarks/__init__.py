"""Measurements that anyone can run; `make bench` prints them and writes flat JSON."""
