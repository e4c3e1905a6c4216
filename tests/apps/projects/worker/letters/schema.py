from letters.jobs import jobs

with jobs.open():
    if not jobs.check_connection():
        jobs.schema_manager.apply_schema()
