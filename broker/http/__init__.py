"""The broker over HTTP: every route decodes, calls one method, and answers."""
