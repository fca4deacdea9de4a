# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name               = "distill-test"
  kubernetes_version = "1.34"
  subnet_ids         = ["subnet-1", "subnet-2"]
  admin_role_arns    = ["arn:aws:iam::123456789012:role/administrators"]
}

run "refuses_a_long_name" {
  command = plan

  variables {
    name = "a-name-that-no-bucket-could-carry"
  }

  expect_failures = [var.name]
}

run "refuses_1_28" {
  command = plan

  variables {
    kubernetes_version = "1.28"
  }

  expect_failures = [var.kubernetes_version]
}

run "refuses_a_patch_version" {
  command = plan

  variables {
    kubernetes_version = "1.34.1"
  }

  expect_failures = [var.kubernetes_version]
}

run "refuses_one_subnet" {
  command = plan

  variables {
    subnet_ids = ["subnet-1"]
  }

  expect_failures = [var.subnet_ids]
}

run "refuses_the_whole_internet" {
  command = plan

  variables {
    public_access_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.public_access_cidrs]
}

run "refuses_nobody_as_administrator" {
  command = plan

  variables {
    admin_role_arns = []
  }

  expect_failures = [var.admin_role_arns]
}

run "refuses_a_user_as_administrator" {
  command = plan

  variables {
    admin_role_arns = ["arn:aws:iam::123456789012:user/me"]
  }

  expect_failures = [var.admin_role_arns]
}

run "refuses_an_odd_retention" {
  command = plan

  variables {
    log_retention_days = 31
  }

  expect_failures = [var.log_retention_days]
}

run "takes_the_oldest_version" {
  command = plan

  variables {
    kubernetes_version = "1.29"
  }
}

run "is_private_by_default" {
  command = plan

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "the API server is reached from inside the VPC alone"
  }

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5
    error_message = "all five logs are on"
  }
}

run "opens_to_whom_it_is_told" {
  command = plan

  variables {
    public_access_cidrs = ["198.51.100.0/24"]
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["198.51.100.0/24"])
    error_message = "the public endpoint is open to these addresses alone"
  }
}
