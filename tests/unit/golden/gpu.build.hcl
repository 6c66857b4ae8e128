# Builds models of version v2 of service vision for TensorRT. Made by nomadserve.
job "vision-v2-build" {
  type        = "batch"
  datacenters = ["*"]
  node_pool   = "gpu"

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

    task "build" {
      driver       = "raw_exec"
      kill_signal  = "SIGINT" # stops the builder at its next step
      kill_timeout = "30s"

      config {
        command = "nomadserve"
        args    = ["build"]
      }

      artifact {
        source      = "https://models.example/detector-v2.onnx"
        destination = "local/models/detector.onnx"
        mode        = "file"

        options {
          archive  = "false"
          checksum = "sha256:abababababababababababababababababababababababababababababababab"
        }
      }

      artifact {
        source      = "s3::https://s3.eu-central-1.amazonaws.com/models/classifier.onnx"
        destination = "local/models/classifier.onnx"
        mode        = "file"

        options {
          archive = "false"
        }
      }

      env {
        NOMADSERVE_SERVICE = "vision"
        NOMADSERVE_VERSION = "v2"
        NOMADSERVE_MODELS  = "[{\"name\":\"detector\",\"path\":\"$${NOMAD_TASK_DIR}/models/detector.onnx\",\"engine\":\"tensorrt\",\"max_batch\":64,\"checksum\":\"sha256:abababababababababababababababababababababababababababababababab\"},{\"name\":\"classifier\",\"path\":\"$${NOMAD_TASK_DIR}/models/classifier.onnx\",\"engine\":\"tensorrt\",\"max_batch\":32,\"threads\":2}]"
      }

      resources {
        cores      = 4
        memory     = 2048
        memory_max = 4096

        device "nvidia/gpu" {
          count = 2

          constraint {
            attribute = "${device.attr.memory}"
            operator  = ">="
            value     = "24 GiB"
          }

          constraint {
            attribute = "${device.model}"
            operator  = "regexp"
            value     = "A100|H100"
          }

          constraint {
            attribute = "${device.attr.driver_version}"
            operator  = "version"
            value     = ">= 550, < 580"
          }

          affinity {
            attribute = "${device.attr.memory}"
            operator  = ">="
            value     = "80 GiB"
            weight    = 75
          }

          affinity {
            attribute = "${device.model}"
            operator  = "regexp"
            value     = "L4"
            weight    = -50
          }
        }
      }
    }
  }
}
