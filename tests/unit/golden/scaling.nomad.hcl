# Version v1 of service digits. Made by nomadserve: change the service file, not this job.
job "digits-v1" {
  type        = "service"
  datacenters = ["dc1", "dc2"]
  namespace   = "ml"
  region      = "global"

  meta {
    nomadserve_service = "digits"
    nomadserve_version = "v1"
  }

  # A changed file of the same version rolls through its replicas, and goes back when they don't get healthy.
  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "2s"
    healthy_deadline  = "5m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "serve" {
    count = 2

    # The largest number that any check asks for wins. A check without data asks for nothing.
    scaling {
      enabled = true
      min     = 2
      max     = 8

      policy {
        evaluation_interval  = "5s"
        cooldown             = "2m"
        cooldown_on_scale_up = "10s"

        check "requests_per_second" {
          source       = "prometheus"
          query        = "clamp_max(ceil((sum(rate(nomadserve_requests_total{service=\"digits\",version=\"v1\",outcome!=\"invalid\"}[1m])) / 100) * 1.25), 8)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_up   = 3
            max_scale_down = 1
          }
        }

        check "in_flight" {
          source       = "prometheus"
          query        = "clamp_max(ceil((sum(avg_over_time(nomadserve_in_flight{service=\"digits\",version=\"v1\"}[30s])) / 12.5) * 1.25), 8)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_up   = 3
            max_scale_down = 1
          }
        }

        check "backlog_seconds" {
          source       = "prometheus"
          query        = "clamp_max(ceil((sum(avg_over_time(nomadserve_backlog_seconds{service=\"digits\",version=\"v1\"}[1m])) / 0.5) * 1.25), 8)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_up   = 3
            max_scale_down = 1
          }
        }

        check "cpu" {
          source = "nomad-apm"
          query  = "avg_cpu-allocated"

          strategy "target-value" {
            target         = 56
            max_scale_up   = 3
            max_scale_down = 1
          }
        }

        check "gpu" {
          source       = "prometheus"
          query        = "clamp_max(ceil((sum(avg_over_time(nomadserve_gpu_utilization{service=\"digits\",version=\"v1\"}[2m])) / 80) * 1.25), 8)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_up   = 3
            max_scale_down = 1
          }
        }

        check "query" {
          source       = "prometheus"
          query        = "clamp_max(ceil((\nsum(jobs_waiting{queue=\"digits\"}) # from our own exporter\n  / 50\n) * 1.25), 8)"
          query_window = "instant"

          strategy "pass-through" {
            max_scale_up   = 3
            max_scale_down = 1
          }
        }

        # 0 8 * * MON-FRI to 30 18 * * MON-FRI, Asia/Tokyo; the autoscaler counts in UTC.
        check "schedule-office" {
          schedule {
            start = "0 23 * * 0-4"
            end   = "30 9 * * 1-5"
          }

          strategy "fixed-value" {
            value = 4
          }
        }

        # 0 6 1 12 * to 0 20 1 12 *, UTC; the autoscaler counts in UTC.
        check "schedule-launch" {
          schedule {
            start = "0 6 1 12 *"
            end   = "0 20 1 12 *"
          }

          strategy "fixed-value" {
            value = 8
          }
        }
      }
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

        device "nvidia/gpu" {
          count = 1

          constraint {
            attribute = "${device.attr.memory}"
            operator  = ">="
            value     = "16 GiB"
          }
        }
      }
    }
  }
}
