# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  cluster_name       = "distill-test"
  kubernetes_version = "1.34"
  subnet_ids         = ["subnet-1"]
  pools = {
    system   = { instance_types = ["m7i.large"], min = 1, max = 2 }
    gpu-spot = { instance_types = ["g5.xlarge"], gpu = true, spot = true, max = 2 }
  }
}

run "refuses_a_long_name" {
  command = plan

  variables {
    cluster_name = "a-name-that-no-bucket-could-carry"
  }

  expect_failures = [var.cluster_name]
}

run "refuses_1_28" {
  command = plan

  variables {
    kubernetes_version = "1.28"
  }

  expect_failures = [var.kubernetes_version]
}

run "refuses_no_subnet" {
  command = plan

  variables {
    subnet_ids = []
  }

  expect_failures = [var.subnet_ids]
}

run "refuses_an_idle_gpu" {
  command = plan

  variables {
    pools = { system = { instance_types = ["m7i.large"], min = 1, max = 2 }, gpu = { instance_types = ["g5.xlarge"], gpu = true, min = 1, max = 2 } }
  }

  expect_failures = [var.pools]
}

run "refuses_a_spot_floor" {
  command = plan

  variables {
    pools = { system = { instance_types = ["m7i.large"], min = 1, max = 2 }, spot = { instance_types = ["m7i.large"], spot = true, min = 1, max = 2 } }
  }

  expect_failures = [var.pools]
}

run "refuses_gpu_types_without_gpu" {
  command = plan

  variables {
    pools = { system = { instance_types = ["m7i.large"], min = 1, max = 2 }, gpu = { instance_types = ["g5.xlarge"], max = 2 } }
  }

  expect_failures = [var.pools]
}

run "refuses_gpu_without_gpu_types" {
  command = plan

  variables {
    pools = { system = { instance_types = ["m7i.large"], min = 1, max = 2 }, gpu = { instance_types = ["m7i.large"], gpu = true, max = 2 } }
  }

  expect_failures = [var.pools]
}

run "refuses_nowhere_for_controllers" {
  command = plan

  variables {
    pools = { gpu = { instance_types = ["g5.xlarge"], gpu = true, max = 2 } }
  }

  expect_failures = [var.pools]
}

run "refuses_more_at_least_than_at_most" {
  command = plan

  variables {
    pools = { system = { instance_types = ["m7i.large"], min = 3, max = 2 } }
  }

  expect_failures = [var.pools]
}

run "refuses_a_small_disk" {
  command = plan

  variables {
    pools = { system = { instance_types = ["m7i.large"], min = 1, max = 2, disk_gib = 20 } }
  }

  expect_failures = [var.pools]
}

run "refuses_an_upper_case_pool" {
  command = plan

  variables {
    pools = { System = { instance_types = ["m7i.large"], min = 1, max = 2 } }
  }

  expect_failures = [var.pools]
}

run "labels_and_taints_are_the_contract" {
  command = plan

  assert {
    condition     = jsonencode(output.node_labels["gpu-spot"]) == jsonencode({ "distill.platform/pool" = "gpu-spot", "nvidia.com/gpu" = "true" })
    error_message = "GPU nodes are found by nvidia.com/gpu and by their pool"
  }

  assert {
    condition     = jsonencode(output.node_taints["gpu-spot"]) == jsonencode({ "distill.platform/pool" = "gpu-spot", "nvidia.com/gpu" = "true" })
    error_message = "spot GPU nodes are tainted twice"
  }

  assert {
    condition     = length(output.node_taints["system"]) == 0
    error_message = "anything may run on system nodes"
  }
}

run "pods_cannot_reach_the_metadata_service" {
  command = plan

  assert {
    condition = alltrue([
      for template in aws_launch_template.this :
      template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1
    ])
    error_message = "IMDSv2 at one hop"
  }
}
