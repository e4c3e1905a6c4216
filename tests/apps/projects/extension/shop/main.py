from fastapi import FastAPI

from shop._crc import checksum

app = FastAPI()


@app.get("/checksum/{text}")
def of(text: str):
    return {"checksum": checksum(text.encode())}
