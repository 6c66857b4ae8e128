# Builds models of version v1 of service nlp for TensorRT. Made by nomadserve.
job "nlp-v1-build" {
  type        = "batch"
  datacenters = ["*"]

  group "build" {
    # What can't be built now can't be built by trying again.
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    volume "engines" {
      type   = "host"
      source = "engines"
    }

    task "build" {
      driver       = "docker"
      kill_signal  = "SIGINT" # stops the builder at its next step
      kill_timeout = "30s"

      config {
        image        = "registry.example/nomadserve:1"
        network_mode = "host"
        command      = "nomadserve"
        args         = ["build"]

        mount {
          type     = "bind"
          source   = "/srv/model.onnx"
          target   = "/models/ranker.onnx"
          readonly = true
        }
      }

      volume_mount {
        volume      = "engines"
        destination = "/engines"
      }

      artifact {
        source      = "https://models.example/bert.onnx"
        destination = "local/models/bert.onnx"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      artifact {
        source      = "https://models.example/embedder.plan?version=3"
        destination = "local/models/embedder.plan"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      env {
        NOMADSERVE_SERVICE      = "nlp"
        NOMADSERVE_VERSION      = "v1"
        NOMADSERVE_MODELS       = "[{\"name\":\"bert\",\"path\":\"$${NOMAD_TASK_DIR}/models/bert.onnx\",\"engine\":\"tensorrt\",\"max_batch\":32,\"precision\":\"fp16\",\"profiles\":[{\"ids\":{\"min\":[1,1],\"opt\":[8,64],\"max\":[32,128]},\"mask\":{\"min\":[1,1],\"opt\":[8,64],\"max\":[32,128]}},{\"ids\":{\"min\":[1,129],\"opt\":[4,256],\"max\":[8,512]},\"mask\":{\"min\":[1,129],\"opt\":[4,256],\"max\":[8,512]}}],\"instances\":2,\"warmup\":5},{\"name\":\"ranker\",\"path\":\"/models/ranker.onnx\",\"engine\":\"onnxruntime\",\"max_batch\":32,\"checksum\":\"sha256:54af4b122691dd8f159e0a47cea783aec497eede033d4d3be1f5c1bf5abb2eb8\"},{\"name\":\"embedder\",\"path\":\"$${NOMAD_TASK_DIR}/models/embedder.plan\",\"engine\":\"tensorrt\",\"max_batch\":32}]"
        NOMADSERVE_ENGINE_CACHE = "/engines"
      }

      resources {
        cpu    = 500
        memory = 1024

        device "nvidia/gpu" {
          count = 1

          constraint {
            attribute = "${device.attr.memory}"
            operator  = ">="
            value     = "8 GiB"
          }
        }
      }
    }
  }
}
