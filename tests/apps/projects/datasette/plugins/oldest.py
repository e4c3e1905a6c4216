from datasette import Response, hookimpl


@hookimpl
def register_routes():
    return [("^/oldest$", oldest)]


async def oldest(datasette):
    rows = await datasette.get_database("books").execute("SELECT title FROM books ORDER BY year LIMIT 1")
    return Response.json({"oldest": rows.first()["title"]})
