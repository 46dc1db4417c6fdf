"""Helpers of the tests: servers, fixtures' data, platforms. A test imports these, never a test."""
