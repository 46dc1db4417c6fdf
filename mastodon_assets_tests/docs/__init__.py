"""The generated pages of the documentation, and the tests that hold all pages current."""
