"""What ViRelAy itself reads of a project, as arrays: run by the Python of its environment, `read_virelay.py PROJECT OUT.npz`.

Every sample, attribution and analysis goes through ViRelAy's loader, and row 0 of both through its server, as a browser
asks for it.
"""

import io
import json
import sys

import numpy as np
from PIL import Image
from virelay.model import Workspace
from virelay.server import Server


def main(project_path: str, out: str) -> None:
    workspace = Workspace()
    workspace.add_project(project_path)
    project = workspace.projects[0]
    samples = project.dataset[:]
    attributions = [project.get_attribution(index) for index in range(len(samples))]
    about = {
        "name": project.name,
        "strategy": project.attribution_strategy,
        "method": project.attribution_method,
        "classes": [label.name for label in project.label_map.labels],
        "sample_labels": [[label.index for label in sample.labels] for sample in samples],
        "explained": [[label.index for label in attribution.labels] for attribution in attributions],
        "analyses": {method: analyses(project, method, out) for method in project.get_analysis_methods()},
        "server": served(workspace) if len(samples) else {},
    }
    if project.attributions[0].has_attribution(len(samples)):
        raise SystemExit("there are more attributions than samples")
    arrays = {"data": [sample.data for sample in samples], "attribution": [a.data for a in attributions]}
    np.savez(out, prediction=[a.prediction for a in attributions], **arrays)
    print(json.dumps(about))


def analyses(project, method: str, out: str) -> list[dict]:
    """Every category with every clustering and embedding of an analysis."""
    found = []
    for category in project.get_analysis_categories(method):
        for clustering in project.get_analysis_clustering_names(method):
            for embedding in project.get_analysis_embedding_names(method):
                analysis = project.get_analysis(method, category.name, clustering, embedding)
                found.append(
                    {
                        "category": category.name,
                        "class": category.human_readable_name,
                        "clustering": clustering,
                        "embedding": embedding,
                        "index": analysis.attribution_indices.tolist(),
                        "clusters": analysis.clustering.tolist(),
                        "values": analysis.embedding.tolist(),
                        "eigenvalues": analysis.eigenvalues.tolist(),
                    }
                )
    return found


def served(workspace: Workspace) -> dict:
    """What the REST API answers for the first row and the first analysis."""
    client = Server(workspace).app.test_client()
    project = client.get("/api/projects/0").get_json()
    analysis = project["analysisMethods"][0]
    query = {
        "category": analysis["categories"][0]["name"],
        "clustering": analysis["clusterings"][0],
        "embedding": analysis["embeddings"][0],
    }
    answers = {
        "sample": client.get("/api/projects/0/dataset/0"),
        "image": client.get("/api/projects/0/dataset/0/image"),
        "attribution": client.get("/api/projects/0/attributions/0"),
        "heatmap": client.get("/api/projects/0/attributions/0/heatmap?colorMap=blue-white-red"),
        "overlay": client.get("/api/projects/0/attributions/0/heatmap?superimpose=true"),
        "analysis": client.get(f"/api/projects/0/analyses/{analysis['name']}", query_string=query),
    }
    seen = {name: answer.status_code for name, answer in answers.items()}
    sizes = {name: Image.open(io.BytesIO(answers[name].data)).size for name in ("image", "heatmap", "overlay")}
    return {"status": seen, "sizes": sizes, "points": len(answers["analysis"].get_json()["embedding"])}


if __name__ == "__main__":
    main(*sys.argv[1:])
