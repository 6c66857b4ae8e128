"""FastAPI by hand: a typed body, the model called inline, no batching. What most teams write first."""

import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from benchmarks.peers import given

app = FastAPI()
session = given.session()
Row = list[float] if len(given.ROW_SHAPE) == 1 else list[list[list[float]]]


class Body(BaseModel):
    """One row."""

    inputs: Row


class Reply(BaseModel):
    """Its scores."""

    outputs: list[float]


@app.post("/predict")
async def predict(body: Body) -> Reply:
    """One row, JSON."""
    return Reply(outputs=given.run(session, np.array([body.inputs], np.float32))[0].tolist())


@app.post("/binary")
async def predict_binary(request: Request) -> Response:
    """One row, raw float32."""
    scores = given.run(session, given.row_of(await request.body())[np.newaxis])
    return Response(scores.tobytes(), media_type="application/octet-stream")
