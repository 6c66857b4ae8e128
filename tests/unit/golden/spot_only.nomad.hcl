# Version v1 of service digits. Made by nomadserve: change the service file, not this job.
job "digits-v1" {
  type        = "service"
  datacenters = ["*"]

  meta {
    nomadserve_service = "digits"
    nomadserve_version = "v1"
  }

  # A changed file of the same version: a new replica gets healthy beside the old ones, and only then are
  # the old ones replaced, a few at a time. If it doesn't get healthy, the old ones go on.
  update {
    canary            = 1
    auto_promote      = true
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "2s"
    healthy_deadline  = "5m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "serve" {
    count = 4

    constraint {
      attribute = "${attr.platform.aws.instance-life-cycle}"
      operator  = "="
      value     = "spot"
    }

    # As few as can be on one node. (Among nodes that are only preferred, Nomad would weigh this above the preference.)
    spread {
      attribute = "${node.unique.id}"
    }

    # A replica whose node is silent waits for it, and is replaced only after that.
    disconnect {
      lost_after = "5m"
      replace    = false
      reconcile  = "longest_running"
    }

    # A node that is drained, as a spot node is when its end is announced.
    migrate {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "2s"
      healthy_deadline = "5m"
    }

    network {
      mode = "host"
      port "http" {}
    }

    # Its replicas under one name. `native` lets Consul split traffic to them; they speak plain HTTP.
    service {
      provider = "consul"
      name     = "digits-v1"
      port     = "http"
      task     = "serve"
      tags     = ["nomadserve", "v1"]

      meta {
        service = "digits"
        version = "v1"
        alloc   = "${NOMAD_ALLOC_ID}"
      }

      connect {
        native = true
      }

      check {
        name     = "ready"
        type     = "http"
        path     = "/v2/health/ready"
        interval = "2s"
        timeout  = "2s"
      }
    }

    # Consul forgets a replica first; it stops answering afterwards.
    shutdown_delay = "3s"

    # A crash is tried again in place, then elsewhere, with growing pauses and for ever.
    restart {
      attempts = 2
      interval = "5m"
      delay    = "3s"
      mode     = "fail"
    }

    reschedule {
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "5m"
      unlimited      = true
    }

    task "serve" {
      driver       = "raw_exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        command = "nomadserve"
        args    = ["serve"]
      }

      env {
        NOMADSERVE_SERVICE         = "digits"
        NOMADSERVE_VERSION         = "v1"
        NOMADSERVE_MODELS          = "[{\"name\":\"digits\",\"path\":\"/srv/model.onnx\",\"engine\":\"onnxruntime\",\"max_batch\":32,\"checksum\":\"sha256:54af4b122691dd8f159e0a47cea783aec497eede033d4d3be1f5c1bf5abb2eb8\"}]"
        NOMADSERVE_HOST            = "${NOMAD_IP_http}"
        NOMADSERVE_PORT            = "${NOMAD_PORT_http}"
        NOMADSERVE_QUEUE_MAX       = "256"
        NOMADSERVE_BATCH_MAX_DELAY = "0s"
        NOMADSERVE_DRAIN_DELAY     = "0s"  # `shutdown_delay` above is that delay
        NOMADSERVE_DRAIN_TIMEOUT   = "25s" # inside of `kill_timeout`
        NOMADSERVE_LOG_LEVEL       = "info"
      }

      resources {
        cpu    = 500
        memory = 1024
      }
    }
  }
}
