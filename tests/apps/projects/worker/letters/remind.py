from letters.jobs import jobs, send

with jobs.open():
    send.defer(to="everybody")
