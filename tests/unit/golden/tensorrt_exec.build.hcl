# Builds models of version v1 of service vision for TensorRT. Made by nomadserve.
job "vision-v1-build" {
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

    # Plans of TensorRT: whoever takes this replica's place on the node finds them.
    ephemeral_disk {
      sticky = true
    }

    task "build" {
      driver       = "exec"
      kill_signal  = "SIGINT" # stops the builder at its next step
      kill_timeout = "30s"

      config {
        command = "nomadserve"
        args    = ["build"]
      }

      artifact {
        source      = "https://models.example/detector.onnx"
        destination = "local/models/detector.onnx"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      env {
        NOMADSERVE_SERVICE      = "vision"
        NOMADSERVE_VERSION      = "v1"
        NOMADSERVE_MODELS       = "[{\"name\":\"detector\",\"path\":\"$${NOMAD_TASK_DIR}/models/detector.onnx\",\"engine\":\"tensorrt\",\"max_batch\":32}]"
        NOMADSERVE_ENGINE_CACHE = "$${NOMAD_ALLOC_DIR}/data/tensorrt"
        NOMADSERVE_TENSORRT     = "tensorrt_rtx"
      }

      resources {
        cpu    = 500
        memory = 1024

        device "nvidia/gpu" {
          count = 2
        }
      }
    }
  }
}
