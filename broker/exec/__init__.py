"""Running a command as one task: a clean environment, the credentials in it, and their end.

``work`` is the task and its grants, ``child`` the process, ``watching`` keeps the one alive while
the other runs. ``members``, ``templates``, ``presets`` and ``files`` say what is handed over, and
``keeping`` holds credentials for programs that ask for them again and again.
"""
